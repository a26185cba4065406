//! `#[derive(Options)]`: one declaration of an option for the command line, recipes, range checks and the book.
//!
//! ```ignore
//! /// How accuracy is won back.
//! #[derive(Serialize, Deserialize, Options)]
//! #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
//! #[options(heading = "Recovery")]
//! pub struct RecoverySpec {
//!     /// Images per finetuning step.
//!     #[option(default = 32, value = "N", range = 1..=65536)]
//!     pub batch: usize,
//! }
//! ```
//!
//! The key in a recipe is the field's name with hyphens, the flag is the key, the help is the doc comment. The derive writes
//! `Default` and the list of options (`margay::options::Options`). What a field says beside its default:
//!
//! | attribute | meaning |
//! |---|---|
//! | `value = "N"` | name of the value in the help |
//! | `range = 1..=9` | least and greatest number |
//! | `choices` | the type is a `clap::ValueEnum` |
//! | `points` | the flag is in percentage points, the key a fraction |
//! | `switch` | a flag without a value, which turns the default over |
//! | `flag = "name"`, `short = 'n'`, `env = "NAME"` | another flag, a short one, a variable |
//! | `help = "…"` | help where the flag says something else than the key |
//! | `shown = "…"` | default in words |
//! | `heading = "…"` | heading of the help, where the struct's does not fit |
//! | `set = function` | reads the flag's text to a table, where the flag sets more or other than the key |
//! | `many` | the flag may be given more than once |
//! | `replaces("key", …)` | keys of the same table that the flag makes void |
//! | `conflicts("flag", …)` | flags that cannot stand beside it |
//! | `also(function, …)` | more flags of this key: functions from its `Opt` to theirs |
//! | `unused = function` | says of a recipe why the option has no effect in it; on the struct: of all fields that say nothing |
//! | `used` | it always has an effect |
//! | `hidden` | no flag |
//! | `table` | the field is a table of options itself |
use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::{ToTokens, quote};
use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, ExprLit, ExprRange, Field, Fields, GenericArgument, Lit,
    LitStr, Meta, PathArguments, Result, Token, Type, parse_macro_input,
};

/// Derives `Options`, and `Default` unless the struct is `#[options(required)]`.
#[proc_macro_derive(Options, attributes(option, options))]
pub fn derive(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// What a struct says of all its fields.
#[derive(Default)]
struct Table {
    heading: Option<LitStr>,
    unused: Option<Expr>,
    required: bool,
}

/// What a field says.
#[derive(Default)]
struct Spec {
    default: Option<Expr>,
    texts: Texts,
    range: Option<ExprRange>,
    set: Option<Expr>,
    unused: Option<Expr>,
    replaces: Vec<Expr>,
    conflicts: Vec<Expr>,
    also: Vec<Expr>,
    short: Option<Expr>,
    marks: Vec<String>,
}

/// The texts of a field by their names.
#[derive(Default)]
struct Texts(Vec<(String, LitStr)>);

impl Texts {
    fn get(&self, name: &str) -> Option<&LitStr> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, text)| text)
    }

    /// `Some("…")` or `None`.
    fn optional(&self, name: &str) -> Tokens {
        optional(self.get(name))
    }
}

const TEXTS: [&str; 6] = ["value", "flag", "help", "shown", "heading", "env"];
const MARKS: [&str; 7] = ["choices", "points", "switch", "hidden", "table", "many", "used"];

impl Spec {
    fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut spec = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("option")) {
            attribute.parse_nested_meta(|meta| spec.add(&meta))?;
        }
        Ok(spec)
    }

    fn add(&mut self, meta: &ParseNestedMeta) -> Result<()> {
        let Some(name) = meta.path.get_ident().map(ToString::to_string) else {
            return Err(meta.error("a single word is expected"));
        };
        if MARKS.contains(&name.as_str()) {
            self.marks.push(name);
            return Ok(());
        }
        if TEXTS.contains(&name.as_str()) {
            self.texts.0.push((name, meta.value()?.parse()?));
            return Ok(());
        }
        match name.as_str() {
            "default" => self.default = Some(meta.value()?.parse()?),
            "range" => self.range = Some(meta.value()?.parse()?),
            "set" => self.set = Some(meta.value()?.parse()?),
            "unused" => self.unused = Some(meta.value()?.parse()?),
            "short" => self.short = Some(meta.value()?.parse()?),
            "replaces" => self.replaces = list(meta)?,
            "conflicts" => self.conflicts = list(meta)?,
            "also" => self.also = list(meta)?,
            _ => return Err(meta.error(format!("no option is described by `{name}`"))),
        }
        Ok(())
    }

    fn is(&self, mark: &str) -> bool {
        self.marks.iter().any(|given| given == mark)
    }
}

fn list(meta: &ParseNestedMeta) -> Result<Vec<Expr>> {
    let content;
    syn::parenthesized!(content in meta.input);
    Ok(Punctuated::<Expr, Token![,]>::parse_terminated(&content)?.into_iter().collect())
}

fn expand(input: &DeriveInput) -> Result<Tokens> {
    let table = read_table(&input.attrs)?;
    let fields = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => &fields.named,
            _ => return Err(Error::new_spanned(input, "options are named fields")),
        },
        _ => return Err(Error::new_spanned(input, "options are the fields of a struct")),
    };
    let mut parts = Vec::new();
    let mut defaults = Vec::new();
    for field in fields {
        let spec = Spec::read(&field.attrs)?;
        let name = &field.ident;
        let default = default_of(&spec);
        defaults.push(quote!(#name: #default));
        parts.push(if spec.is("table") { nested(field) } else { option(field, &spec, &table)? });
    }
    let name = &input.ident;
    let default = (!table.required).then(|| {
        quote! {
            impl ::std::default::Default for #name {
                fn default() -> Self {
                    Self { #(#defaults),* }
                }
            }
        }
    });
    Ok(quote! {
        #default

        impl crate::options::Options for #name {
            fn options() -> ::std::vec::Vec<crate::options::Opt> {
                let mut options = ::std::vec::Vec::new();
                #(#parts)*
                options
            }
        }
    })
}

fn read_table(attributes: &[Attribute]) -> Result<Table> {
    let mut table = Table::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("options")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("heading") {
                table.heading = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("unused") {
                table.unused = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("required") {
                table.required = true;
            } else {
                return Err(meta.error("heading, unused or required is expected"));
            }
            Ok(())
        })?;
    }
    Ok(table)
}

/// The options of a field that is a table.
fn nested(field: &Field) -> Tokens {
    let (key, kind) = (key(field), &field.ty);
    quote! {
        options.extend(<#kind as crate::options::Options>::options().into_iter().map(|option| option.inside(#key)));
    }
}

/// The option that a field is.
fn option(field: &Field, spec: &Spec, table: &Table) -> Result<Tokens> {
    let key = key(field);
    let about = docs(&field.attrs)?;
    let help = spec.texts.get("help").map_or_else(|| about.clone(), LitStr::value);
    let flag = spec.texts.get("flag").cloned().unwrap_or_else(|| literal(&key));
    let flag = optional((!spec.is("hidden")).then_some(&flag));
    let heading = optional(spec.texts.get("heading").or(table.heading.as_ref()));
    let [value, shown, env] = ["value", "shown", "env"].map(|name| spec.texts.optional(name));
    let short = optional(spec.short.as_ref());
    let range = match &spec.range {
        Some(ExprRange { start: Some(least), end: Some(most), .. }) => {
            quote!(::std::option::Option::Some([#least as f64, #most as f64]))
        }
        Some(range) => return Err(Error::new_spanned(range, "a range has two ends")),
        None => quote!(::std::option::Option::None),
    };
    let read = reader(field, spec);
    // A table that says nothing is left out of recipes, with the defaults of what has no flag.
    let default = if spec.is("hidden") {
        let (kind, default) = (&field.ty, default_of(spec));
        quote!({
            let default: #kind = #default;
            ::toml::Value::try_from(default).ok()
        })
    } else {
        quote!(::std::option::Option::None)
    };
    let choices = if spec.is("choices") {
        let kind = inner(&field.ty);
        quote!(crate::options::choices::<#kind>())
    } else {
        quote!(::std::vec::Vec::new())
    };
    let others = spec.also.len();
    let (points, many) = (spec.is("points"), spec.is("many"));
    let (replaces, conflicts, also) = (&spec.replaces, &spec.conflicts, &spec.also);
    let unused = optional(spec.unused.as_ref().or(table.unused.as_ref().filter(|_| !spec.is("used"))));
    Ok(quote! {
        let option = crate::options::Opt {
            table: ::std::string::String::new(),
            key: #key,
            flag: #flag,
            short: #short,
            env: #env,
            heading: #heading,
            about: #about,
            help: #help,
            value: #value,
            shown: #shown,
            default: #default,
            range: #range,
            points: #points,
            many: #many,
            choices: #choices,
            read: #read,
            replaces: &[#(#replaces),*],
            conflicts: &[#(#conflicts),*],
            unused: #unused,
        };
        let also: [crate::options::Opt; #others] = [#(#also(&option)),*];
        options.push(option);
        options.extend(also);
    })
}

/// The expression of a field's default.
fn default_of(spec: &Spec) -> Tokens {
    let default = spec.default.as_ref();
    default.map_or_else(|| quote!(::std::default::Default::default()), ToTokens::to_token_stream)
}

/// How the flag's text becomes what a recipe says.
fn reader(field: &Field, spec: &Spec) -> Tokens {
    let kind = inner(&field.ty);
    if spec.is("hidden") {
        return quote!(crate::options::Read::Hidden);
    }
    if let Some(set) = &spec.set {
        return quote!(crate::options::Read::Table(#set));
    }
    if spec.is("switch") {
        let on = !matches!(&spec.default, Some(Expr::Lit(ExprLit { lit: Lit::Bool(on), .. })) if on.value);
        return quote!(crate::options::Read::Switch(#on));
    }
    if spec.is("choices") {
        return quote!(crate::options::Read::Value(crate::options::from_choice::<#kind>));
    }
    if spec.is("points") {
        return quote!(crate::options::Read::Value(crate::options::from_points));
    }
    quote!(crate::options::Read::Value(crate::options::from_text::<#kind>))
}

/// `T` of an `Option<T>`, else the type itself.
fn inner(kind: &Type) -> &Type {
    let Type::Path(path) = kind else { return kind };
    let Some(last) = path.path.segments.last().filter(|last| last.ident == "Option") else { return kind };
    match &last.arguments {
        PathArguments::AngleBracketed(arguments) => match arguments.args.first() {
            Some(GenericArgument::Type(inner)) => inner,
            _ => kind,
        },
        _ => kind,
    }
}

/// The name of a field in a recipe.
fn key(field: &Field) -> String {
    field.ident.as_ref().expect("fields are named").to_string().replace('_', "-")
}

/// The first paragraph of the doc comment as one line, without its full stop.
fn docs(attributes: &[Attribute]) -> Result<String> {
    let mut lines = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        if let Meta::NameValue(doc) = &attribute.meta
            && let Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) = &doc.value
        {
            lines.push(line.value().trim().to_owned());
        }
    }
    let text = lines.join(" ");
    if text.is_empty() {
        return Err(Error::new_spanned(attributes.first(), "an option says what it is in a doc comment"));
    }
    Ok(text.strip_suffix('.').unwrap_or(&text).to_owned())
}

fn literal(text: &str) -> LitStr {
    LitStr::new(text, proc_macro2::Span::call_site())
}

fn optional<T: ToTokens>(value: Option<&T>) -> Tokens {
    value.map_or_else(
        || quote!(::std::option::Option::None),
        |value| quote!(::std::option::Option::Some(#value)),
    )
}
