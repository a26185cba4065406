//! Files as `torch.save` writes them, of values as Python has them.

use std::collections::BTreeMap;

/// A value to be pickled.
#[derive(Clone, Debug)]
pub enum Py {
    None,
    Int(i64),
    Float(f64),
    Text(&'static str),
    Key(String),
    Tuple(Vec<Py>),
    Dict(Vec<(Py, Py)>),
    /// A class or function that is named.
    Global(&'static str),
    /// A class or function that is called.
    Call(&'static str, Vec<Py>),
    /// An instance of a class with these attributes.
    Object(&'static str, Vec<(Py, Py)>),
    /// An instance of a subclass of `dict`.
    Mapping(&'static str, Vec<(Py, Py)>),
    Tensor(Array),
    /// Bytes as Python 3 writes them for Python 2.
    Bytes(Vec<u8>),
}

/// A tensor with a storage of its own.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
    /// `FloatStorage` and the like.
    pub kind: &'static str,
    pub bytes: Vec<u8>,
}

impl Array {
    pub fn f32(shape: &[usize], values: &[f32]) -> Self {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { shape: shape.to_vec(), strides, kind: "FloatStorage", bytes }
    }
}

/// Named values of a dictionary.
pub fn dict<const N: usize>(entries: [(&'static str, Py); N]) -> Py {
    Py::Dict(entries.map(|(key, value)| (Py::Text(key), value)).to_vec())
}

#[derive(Default)]
struct Pickler {
    out: Vec<u8>,
    storages: Vec<Vec<u8>>,
}

impl Pickler {
    fn global(&mut self, name: &str) {
        let (module, name) = name.rsplit_once('.').unwrap();
        self.out.extend(format!("c{module}\n{name}\n").bytes());
    }

    fn text(&mut self, text: &str) {
        self.out.push(b'X');
        self.out.extend((text.len() as u32).to_le_bytes());
        self.out.extend(text.bytes());
    }

    fn tuple(&mut self, items: &[Py]) {
        self.out.push(b'(');
        for item in items {
            self.value(item);
        }
        self.out.push(b't');
    }

    fn entries(&mut self, entries: &[(Py, Py)]) {
        self.out.push(b'(');
        for (key, value) in entries {
            self.value(key);
            self.value(value);
        }
        self.out.push(b'u');
    }

    fn numbers(&mut self, numbers: &[usize]) {
        let numbers: Vec<Py> = numbers.iter().map(|n| Py::Int(*n as i64)).collect();
        self.tuple(&numbers);
    }

    fn value(&mut self, value: &Py) {
        match value {
            Py::None => self.out.push(b'N'),
            Py::Int(n) => {
                self.out.extend([0x8a, 8]);
                self.out.extend(n.to_le_bytes());
            }
            Py::Float(x) => {
                self.out.push(b'G');
                self.out.extend(x.to_be_bytes());
            }
            Py::Text(text) => self.text(text),
            Py::Key(text) => self.text(text),
            Py::Tuple(items) => self.tuple(items),
            Py::Dict(entries) => {
                self.out.push(b'}');
                self.entries(entries);
            }
            Py::Global(name) => self.global(name),
            Py::Call(name, arguments) => {
                self.global(name);
                self.tuple(arguments);
                self.out.push(b'R');
            }
            Py::Object(class, attributes) => {
                self.global(class);
                self.out.extend(b")\x81}");
                self.entries(attributes);
                self.out.push(b'b');
            }
            Py::Mapping(class, entries) => {
                self.global(class);
                self.out.extend(b")\x81");
                self.entries(entries);
            }
            Py::Tensor(array) => self.tensor(array),
            Py::Bytes(bytes) => {
                let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
                self.value(&Py::Call("_codecs.encode", vec![Py::Key(text), Py::Text("latin1")]));
            }
        }
    }

    fn tensor(&mut self, array: &Array) {
        let key = self.storages.len().to_string();
        self.storages.push(array.bytes.clone());
        self.global("torch._utils._rebuild_tensor_v2");
        self.out.extend(b"((");
        self.text("storage");
        self.global(&format!("torch.{}", array.kind));
        self.text(&key);
        self.text("cpu");
        self.value(&Py::Int(array.bytes.len() as i64));
        self.out.push(b't');
        self.out.push(b'Q');
        self.value(&Py::Int(0));
        self.numbers(&array.shape);
        self.numbers(&array.strides);
        self.out.push(0x89);
        self.value(&Py::Call("collections.OrderedDict", Vec::new()));
        self.out.extend(b"tR");
    }
}

/// An archive under this name.
pub fn archive(stem: &str, root: &Py) -> Vec<u8> {
    let mut pickler = Pickler { out: vec![0x80, 2], storages: Vec::new() };
    pickler.value(root);
    pickler.out.push(b'.');
    let mut entries =
        vec![(format!("{stem}/data.pkl"), pickler.out), (format!("{stem}/byteorder"), b"little".to_vec())];
    let storages = pickler.storages.into_iter().enumerate();
    entries.extend(storages.map(|(key, bytes)| (format!("{stem}/data/{key}"), bytes)));
    entries.push((format!("{stem}/version"), b"3\n".to_vec()));
    zipped(&entries)
}

/// An archive whose entries begin at multiples of 64 bytes behind a padding field, as PyTorch writes it.
pub fn zipped(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let start = out.len() as u32;
        let after = out.len() + 30 + name.len() + 4;
        let padding = (64 - after % 64) % 64;
        let length = bytes.len() as u32;
        let shared = |extra: usize| {
            let mut header = vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header.extend(crc(bytes).to_le_bytes());
            header.extend([length.to_le_bytes(), length.to_le_bytes()].concat());
            header.extend((name.len() as u16).to_le_bytes());
            header.extend((extra as u16).to_le_bytes());
            header
        };
        out.extend(b"PK\x03\x04");
        out.extend(shared(4 + padding));
        out.extend(name.bytes());
        out.extend(b"FB");
        out.extend((padding as u16).to_le_bytes());
        out.extend(std::iter::repeat_n(b'Z', padding));
        out.extend(bytes);
        directory.extend(b"PK\x01\x02\0\0");
        directory.extend(shared(0));
        directory.extend([0; 10]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.bytes());
    }
    let (count, start, length) = (entries.len() as u16, out.len() as u32, directory.len() as u32);
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    out.extend([length.to_le_bytes(), start.to_le_bytes()].concat());
    out.extend([0, 0]);
    out
}

/// CRC-32 as zip has it.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// A state dict of f32 tensors.
pub fn state(tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Vec<(Py, Py)> {
    let entry = |(key, (shape, values)): (&String, &(Vec<usize>, Vec<f32>))| {
        (Py::Key(key.clone()), Py::Tensor(Array::f32(shape, values)))
    };
    tensors.iter().map(entry).collect()
}
