//! What the functions and classes that a pickle names would make of their arguments, and which of them may run code.

use super::machine::Machine;
use super::{Home, Id, PickleError, Tensor, Value};

type Made = Result<Option<Id>, PickleError>;

/// Makes the value of a call; nothing where the arguments are unusual.
type Make = fn(&mut Machine<'_>, &str, &[Id]) -> Made;

/// What to do with a call.
pub(super) enum Verdict {
    /// Its result is known.
    Data(Make),
    /// An object of a class that nothing is known of.
    Unknown,
    /// It may run code.
    Code,
}

/// Calls whose results are known, by the end of their names behind a point.
const CONSTRUCTORS: &[(&[&str], Make)] = &[
    (
        &[
            "torch._utils._rebuild_tensor",
            "torch._utils._rebuild_tensor_v2",
            "torch._utils._rebuild_tensor_v3",
        ],
        tensor,
    ),
    (&["torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"], first),
    (&["torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "torch.Size"], first),
    (&["torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type"], of_type),
    (
        &[
            "torch._utils._rebuild_qtensor",
            "torch._utils._rebuild_sparse_tensor",
            "torch._utils._rebuild_sparse_csr_tensor",
            "torch._utils._rebuild_nested_tensor",
            "torch._utils._rebuild_wrapper_subclass",
            "torch._utils._rebuild_meta_tensor_no_storage",
        ],
        unusual_tensor,
    ),
    (&["collections.OrderedDict", "builtins.dict", "__builtin__.dict", "collections.Counter"], dictionary),
    (&["collections.defaultdict"], default_dictionary),
    (
        &[
            "builtins.set",
            "builtins.frozenset",
            "builtins.list",
            "builtins.tuple",
            "__builtin__.set",
            "__builtin__.frozenset",
            "__builtin__.list",
            "__builtin__.tuple",
            "collections.deque",
            "torch.device",
        ],
        first,
    ),
    (&["builtins.getattr", "__builtin__.getattr"], attribute),
    (
        &["copyreg._reconstructor", "copy_reg._reconstructor", "copyreg.__newobj__", "copy_reg.__newobj__"],
        instance,
    ),
    (&["_codecs.encode"], encoded),
    (&["pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib.Path"], path),
    (&["numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"], scalar),
    (&["numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"], from_buffer),
];

/// Classes of Python's own library that hold data and do nothing when they are made.
const INERT: &[&str] = &[
    "argparse.Namespace",
    "array.array",
    "array._array_reconstructor",
    "builtins.bytearray",
    "builtins.bytes",
    "builtins.complex",
    "builtins.float",
    "builtins.int",
    "builtins.bool",
    "builtins.str",
    "builtins.object",
    "builtins.range",
    "builtins.xrange",
    "builtins.long",
    "builtins.unicode",
    "builtins.slice",
    "builtins.type",
    "collections.ChainMap",
    "collections.UserDict",
    "collections.UserList",
    "functools.partial",
    "inspect.Parameter",
    "inspect.Signature",
    "inspect._ParameterKind",
    "io.BytesIO",
    "io.StringIO",
    "_io.BytesIO",
    "_io.StringIO",
    "itertools.count",
    "logging.Logger",
    "logging.getLogger",
    "operator.attrgetter",
    "operator.getitem",
    "operator.itemgetter",
    "random.Random",
    "re._compile",
    "sre_compile._compile",
    "time.struct_time",
    "types.SimpleNamespace",
    "types.MappingProxyType",
];

/// Modules of Python's own library in which all classes are data.
const INERT_MODULES: &[&str] = &[
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "ipaddress",
    "numbers",
    "pathlib",
    "uuid",
    "zoneinfo",
    "exceptions",
];

/// Modules and functions beyond Python's own library that import, compile or download.
const CODE: &[&str] = &[
    "torch.hub",
    "torch.load",
    "torch.jit",
    "torch.fx",
    "torch.ops",
    "torch.classes",
    "torch.package",
    "torch.serialization",
    "torch.distributed",
    "torch.multiprocessing",
    "torch._dynamo",
    "torch._inductor",
    "torch.utils.cpp_extension",
    "torch.utils.model_zoo",
    "numpy.load",
    "numpy.f2py",
    "numpy.testing",
    "numpy.distutils",
    "pandas.read_pickle",
    "pandas.eval",
    "pip",
    "setuptools",
    "pkg_resources",
    "IPython",
    "dill",
    "cloudpickle",
    "joblib",
    "sympy",
];

/// Modules of Python's own library, of every version from 2.7.
const STANDARD: &str = "\
abc aifc antigravity argparse array ast asynchat asyncio asyncore atexit audioop base64 bdb binascii bisect \
builtins bz2 cProfile calendar cgi cgitb chunk cmath cmd code codecs codeop collections colorsys compileall \
concurrent configparser contextlib contextvars copy copyreg crypt csv ctypes curses dataclasses datetime dbm \
decimal difflib dis distutils doctest email encodings ensurepip enum errno faulthandler fcntl filecmp \
fileinput fnmatch fractions ftplib functools gc genericpath getopt getpass gettext glob graphlib grp gzip \
hashlib heapq hmac html http idlelib imaplib imghdr imp importlib inspect io ipaddress itertools json \
keyword lib2to3 linecache locale logging lzma mailbox mailcap marshal math mimetypes mmap modulefinder \
msilib msvcrt multiprocessing netrc nis nntplib nt ntpath nturl2path numbers opcode operator optparse os \
ossaudiodev pathlib pdb pickle pickletools pipes pkgutil platform plistlib poplib posix posixpath pprint \
profile pstats pty pwd py_compile pyclbr pydoc pydoc_data pyexpat queue quopri random re readline reprlib \
resource rlcompleter runpy sched secrets select selectors shelve shlex shutil signal site smtpd smtplib \
sndhdr socket socketserver spwd sqlite3 sre_compile sre_constants sre_parse ssl stat statistics string \
stringprep struct subprocess sunau symtable sys sysconfig syslog tabnanny tarfile telnetlib tempfile termios \
textwrap this threading time timeit tkinter token tokenize tomllib trace traceback tracemalloc tty turtle \
turtledemo types typing unicodedata unittest urllib uu uuid venv warnings wave weakref webbrowser winreg \
winsound wsgiref xdrlib xml xmlrpc zipapp zipfile zipimport zlib zoneinfo \
commands popen2 copy_reg cPickle cStringIO StringIO urllib2 urlparse httplib exceptions Queue SocketServer \
thread new imputil ihooks user rexec Bastion dircache compiler";

/// What a call of this name would do.
pub(super) fn verdict(name: &str) -> Verdict {
    if let Some((_, make)) = CONSTRUCTORS.iter().find(|(names, _)| names.contains(&name)) {
        return Verdict::Data(*make);
    }
    let is_within = |module: &&str| {
        name.strip_prefix(*module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    // `__builtin__` is what Python 2 calls `builtins`.
    let modern = name.strip_prefix("__builtin__.").map(|rest| format!("builtins.{rest}"));
    let inert = INERT.contains(&modern.as_deref().unwrap_or(name)) || is_exception(name);
    let (module, _) = name.rsplit_once('.').unwrap_or((name, ""));
    if inert || INERT_MODULES.contains(&module) {
        return Verdict::Unknown;
    }
    // A module is an attribute of every module that imports it: `torch.os.system`.
    let code = CODE.iter().any(is_within) || name.split('.').any(is_standard);
    if code && !name.starts_with("__main__.") && !name.starts_with("__torch__.") || is_hidden_code(name) {
        Verdict::Code
    } else {
        Verdict::Unknown
    }
}

/// Whether one component of a name is a module of Python's own library that can do things.
fn is_standard(component: &str) -> bool {
    // Ordinary packages have modules of these names, too.
    const ORDINARY: &[&str] = &[
        "abc",
        "array",
        "base64",
        "calendar",
        "cmd",
        "code",
        "collections",
        "colorsys",
        "copy",
        "csv",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "errno",
        "fractions",
        "functools",
        "hashlib",
        "html",
        "inspect",
        "itertools",
        "json",
        "locale",
        "logging",
        "math",
        "numbers",
        "operator",
        "optparse",
        "parser",
        "pathlib",
        "platform",
        "profile",
        "queue",
        "random",
        "re",
        "resource",
        "select",
        "selectors",
        "signal",
        "stat",
        "statistics",
        "string",
        "struct",
        "symbol",
        "test",
        "time",
        "token",
        "tokenize",
        "trace",
        "types",
        "typing",
        "user",
        "uuid",
        "warnings",
        "wave",
        "new",
        "chunk",
        "compiler",
        "pipes",
        "site",
        "sched",
        "secrets",
        "this",
        "turtle",
    ];
    STANDARD.split(' ').any(|module| module == component) && !ORDINARY.contains(&component)
}

/// Names whose first module is Python's own, whatever follows; and private doors to the interpreter.
fn is_hidden_code(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or(name);
    let own = STANDARD.split(' ').any(|module| module == first);
    let private = first.starts_with('_') && !["__main__", "__torch__"].contains(&first);
    let dunder = name.split('.').skip(1).any(|part| {
        ["__globals__", "__builtins__", "__import__", "__subclasses__", "__code__", "__reduce__"]
            .contains(&part)
    });
    own || private || dunder
}

fn is_exception(name: &str) -> bool {
    let own =
        ["builtins.", "__builtin__.", "exceptions."].iter().find_map(|module| name.strip_prefix(module));
    own.is_some_and(|class| {
        ["Error", "Exception", "Warning", "Interrupt"].iter().any(|end| class.ends_with(end))
    })
}

#[expect(clippy::unnecessary_wraps, reason = "one of a table")]
fn first(_: &mut Machine<'_>, _: &str, arguments: &[Id]) -> Made {
    Ok(arguments.first().copied())
}

/// `(class, …)`: an object that is made without its constructor.
fn instance(machine: &mut Machine<'_>, name: &str, arguments: &[Id]) -> Made {
    let Some((class, rest)) = arguments.split_first() else { return Ok(None) };
    match machine.value(*class) {
        Value::Global(class) if !matches!(verdict(class), Verdict::Code) => {
            let class = class.clone();
            machine.spend(class.len())?;
            machine.object(class, rest.to_vec()).map(Some)
        }
        Value::Global(class) => Err(PickleError::Calls(class.clone())),
        _ => Err(PickleError::Calls(name.to_owned())),
    }
}

/// `(storage, offset, shape, strides, …)`; the third version names the type behind them.
fn tensor(machine: &mut Machine<'_>, name: &str, arguments: &[Id]) -> Made {
    let [storage, offset, shape, strides, rest @ ..] = arguments else { return Ok(None) };
    let numbers = (machine.integer(*offset), machine.integers(*shape), machine.integers(*strides));
    let (Value::Storage(storage), (Some(offset), Some(shape), Some(strides))) =
        (machine.value(*storage), numbers)
    else {
        return Ok(None);
    };
    if shape.len() != strides.len() {
        return Err(PickleError::Damaged("a tensor has other strides than axes".to_owned()));
    }
    let typed = rest.get(3).map(|id| machine.value(*id));
    let dtype = match typed {
        Some(Value::Global(dtype)) if name.ends_with("_v3") => dtype.clone(),
        _ => storage.kind.clone(),
    };
    let offset = offset.saturating_add(storage.start);
    let home = Home::Storage((**storage).clone());
    machine.make_tensor(Tensor { home, dtype, offset, shape, strides }).map(Some)
}

/// `(function, class, arguments, state)` of a subclass of tensors.
fn of_type(machine: &mut Machine<'_>, _: &str, arguments: &[Id]) -> Made {
    let [function, _, inner, ..] = arguments else { return Ok(None) };
    let inner = machine.sequence(*inner);
    machine.spend(inner.len() * size_of::<Id>())?;
    machine.called(*function, inner).map(Some)
}

/// A tensor whose numbers are of no use here; its shape is the first tuple of extents, if there is one.
fn unusual_tensor(machine: &mut Machine<'_>, name: &str, arguments: &[Id]) -> Made {
    let shape = arguments.iter().find_map(|id| machine.integers(*id)).unwrap_or_default();
    let dtype = if name.ends_with("_qtensor") { "a quantised type" } else { "an unusual layout" };
    machine.make_tensor(Tensor::opaque(dtype, shape)).map(Some)
}

/// Pairs, a dictionary, or nothing.
fn dictionary(machine: &mut Machine<'_>, _: &str, arguments: &[Id]) -> Made {
    let Some(given) = arguments.first() else { return machine.make(Value::Dict(Vec::new())).map(Some) };
    match machine.value(*given) {
        Value::Dict(_) => Ok(Some(*given)),
        Value::Sequence(items) => {
            let items = items.clone();
            machine.spend(items.len() * size_of::<(Id, Id)>())?;
            let pair = |id: Id| match machine.value(id) {
                Value::Sequence(pair) => {
                    <[Id; 2]>::try_from(pair.as_slice()).ok().map(|[key, value]| (key, value))
                }
                _ => None,
            };
            match items.into_iter().map(pair).collect() {
                Some(entries) => machine.make(Value::Dict(entries)).map(Some),
                None => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

/// `(factory, pairs)`
fn default_dictionary(machine: &mut Machine<'_>, name: &str, arguments: &[Id]) -> Made {
    dictionary(machine, name, arguments.get(1..).unwrap_or_default())
}

/// A method of a class is a name, too; attributes of objects stay with them.
fn attribute(machine: &mut Machine<'_>, name: &str, arguments: &[Id]) -> Made {
    let [owner, attribute] = arguments else { return Err(PickleError::Calls(name.to_owned())) };
    let (owner, attribute) = (machine.value(*owner), machine.value(*attribute));
    match (owner, attribute) {
        (Value::Global(owner), Value::Text(attribute)) => {
            let full = format!("{owner}.{attribute}");
            let spent = full.len();
            if matches!(verdict(owner), Verdict::Code) || matches!(verdict(&full), Verdict::Code) {
                return Err(PickleError::Calls(format!("{name}({full})")));
            }
            machine.spend(spent)?;
            machine.make(Value::Global(full)).map(Some)
        }
        (Value::Object(_), Value::Text(attribute)) if !attribute.starts_with("__") => Ok(None),
        _ => Err(PickleError::Calls(name.to_owned())),
    }
}

/// Bytes as Python 3 writes them for Python 2: a text of their code points.
fn encoded(machine: &mut Machine<'_>, _: &str, arguments: &[Id]) -> Made {
    let Some(Value::Text(text)) = arguments.first().map(|id| machine.value(*id)) else { return Ok(None) };
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    let Some(bytes) = bytes else { return Ok(None) };
    machine.spend(bytes.len())?;
    machine.make(Value::Bytes(bytes)).map(Some)
}

fn path(machine: &mut Machine<'_>, _: &str, arguments: &[Id]) -> Made {
    let part = |id: &Id| match machine.value(*id) {
        Value::Text(part) => Some(part.as_str()),
        _ => None,
    };
    let Some(parts) = arguments.iter().map(part).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let joined = parts.join("/");
    machine.spend(joined.len())?;
    machine.make(Value::Text(joined)).map(Some)
}

/// A number of NumPy: `(type, bytes)`.
fn scalar(machine: &mut Machine<'_>, _: &str, arguments: &[Id]) -> Made {
    let [dtype, bytes, ..] = arguments else { return Ok(None) };
    let (Some(dtype), Some(bytes)) = (numpy_type(machine, *dtype), raw(machine.value(*bytes))) else {
        return Ok(None);
    };
    match number(&dtype, bytes) {
        Some(value) => machine.make(value).map(Some),
        None => Ok(None),
    }
}

fn number(dtype: &str, bytes: &[u8]) -> Option<Value> {
    let whole = |signed: bool| {
        let negative = signed && bytes.last().is_some_and(|byte| *byte >= 0x80);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(i64::from_le_bytes(all))
    };
    match dtype.trim_start_matches(['<', '|', '=']) {
        "f8" => bytes.try_into().ok().map(f64::from_le_bytes).map(Value::Float),
        "f4" => bytes.try_into().ok().map(|b| Value::Float(f64::from(f32::from_le_bytes(b)))),
        "b1" => bytes.first().map(|byte| Value::Bool(*byte != 0)),
        "i1" | "i2" | "i4" | "i8" => whole(true).map(Value::Int),
        "u1" | "u2" | "u4" | "u8" => whole(false).map(Value::Int),
        _ => None,
    }
}

/// `(buffer, type, shape, order)`, as protocol 5 writes arrays.
fn from_buffer(machine: &mut Machine<'_>, _: &str, arguments: &[Id]) -> Made {
    let [buffer, dtype, shape, order] = arguments else { return Ok(None) };
    let (Some(dtype), Some(shape)) = (numpy_type(machine, *dtype), machine.integers(*shape)) else {
        return Ok(None);
    };
    let fortran = matches!(machine.value(*order), Value::Text(order) if order == "F");
    let array = array(*buffer, dtype, shape, fortran);
    machine.make_tensor(array).map(Some)
}

fn array(bytes: Id, dtype: String, shape: Vec<usize>, fortran: bool) -> Tensor {
    let mut strides = vec![1_usize; shape.len()];
    let step = |strides: &mut Vec<usize>, to: usize, from: usize| {
        strides[to] = strides[from].saturating_mul(shape[from].max(1));
    };
    if fortran {
        (1..shape.len()).for_each(|axis| step(&mut strides, axis, axis - 1));
    } else {
        (1..shape.len()).rev().for_each(|axis| step(&mut strides, axis - 1, axis));
    }
    Tensor { home: Home::Inline(bytes), dtype, offset: 0, shape, strides }
}

/// What the state of an array, a type of numbers or a class of old makes of an object; nothing if it is another.
pub(super) fn built(machine: &Machine<'_>, target: Id, state: Id) -> Option<Value> {
    let Value::Object(object) = machine.value(target) else { return None };
    if !["numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"]
        .contains(&object.class.as_str())
    {
        return None;
    }
    // `(version, shape, type, whether columns come first, bytes)`
    let Value::Sequence(state) = machine.value(state) else { return None };
    let [_, shape, dtype, fortran, bytes] = state.as_slice() else { return None };
    raw(machine.value(*bytes))?;
    let (shape, dtype) = (machine.integers(*shape)?, numpy_type(machine, *dtype)?);
    let fortran = *machine.value(*fortran) == Value::Bool(true);
    Some(Value::Tensor(Box::new(array(*bytes, dtype, shape, fortran))))
}

fn raw(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Bytes(bytes) => Some(bytes),
        Value::Text(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// `numpy.dtype("f4")` and the byte order that its state tells.
fn numpy_type(machine: &Machine<'_>, id: Id) -> Option<String> {
    let Value::Object(object) = machine.value(id) else { return None };
    let Value::Text(name) = machine.value(*object.arguments.first()?) else { return None };
    let order = object.state.and_then(|state| match machine.value(state) {
        Value::Sequence(state) => state.get(1).map(|order| machine.value(*order)),
        _ => None,
    });
    let big = matches!(order, Some(Value::Text(order)) if order == ">");
    (object.class == "numpy.dtype").then(|| if big { format!(">{name}") } else { name.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_may_do_is_told_by_its_name() {
        for code in [
            "os.system",
            "posix.system",
            "nt.system",
            "subprocess.Popen",
            "builtins.eval",
            "__builtin__.eval",
            "__builtin__.exec",
            "builtins.__import__",
            "builtins.print",
            "builtins.open",
            "importlib.import_module",
            "runpy.run_path",
            "pickle.loads",
            "_pickle.loads",
            "webbrowser.open",
            "torch.os.system",
            "torch.hub.load",
            "torch.load",
            "torch.jit._serialization.load",
            "numpy.testing._private.utils.runstring",
            "operator.methodcaller",
            "functools.reduce",
            "types.FunctionType",
            "types.CodeType",
            "train.Config.__globals__",
            "dataclasses.make_dataclass",
            "logging.config.listen",
            "code.interact",
            "pip.main",
        ] {
            assert!(matches!(verdict(code), Verdict::Code), "{code}");
        }
        for unknown in [
            "train.TrainConfig",
            "__main__.Config",
            "easydict.EasyDict",
            "munch.Munch",
            "argparse.Namespace",
            "builtins.complex",
            "__builtin__.complex",
            "builtins.ValueError",
            "datetime.datetime",
            "datetime.timedelta",
            "decimal.Decimal",
            "enum.Enum",
            "functools.partial",
            "types.SimpleNamespace",
            "omegaconf.dictconfig.DictConfig",
            "torch.nn.modules.linear.Linear",
            "torch.optim.lr_scheduler.StepLR",
            "torchvision.models.resnet.ResNet",
            "pytorch_lightning.utilities.parsing.AttributeDict",
            "models.common.Conv",
            "utils.json.Config",
            "numpy.dtype",
        ] {
            assert!(matches!(verdict(unknown), Verdict::Unknown), "{unknown}");
        }
    }
}
