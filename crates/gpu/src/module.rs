//! A WGSL module under construction: what it binds, the numbers that it takes, and its text.

use crate::library;
use gradus_device::{Access, Parameters};
use gradus_ir::DType;
use gradus_ir::plan::BufferId;
use std::fmt::Write;

/// How many neighbouring elements an invocation computes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// One.
    Scalar,
    /// Four, as a vector.
    Vector,
}

/// What a binding of a launch stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    /// A buffer of the plan.
    Plan(BufferId),
    /// The words in which checks leave what they found.
    Status,
}

/// A word that a launch passes to its kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Parameter {
    /// Known when the plan is compiled.
    Word(u32),
    /// The number in a scalar slot, as a dtype's bits.
    Scalar(usize, DType),
    /// The lower half of the random key in a scalar slot.
    KeyLow(usize),
    /// The upper half.
    KeyHigh(usize),
}

impl Parameter {
    /// The word, where no run is needed to know it.
    pub(crate) fn known(self) -> u32 {
        if let Parameter::Word(word) = self { word } else { 0 }
    }
}

struct Binding {
    name: String,
    slot: Slot,
    element: String,
    access: Access,
}

/// Which sizes (extents, strides, offsets) of a kernel are part of its text, by their position in [`Module::sizes`];
/// others are parameters.
pub(crate) type Baked<'a> = &'a [bool];

/// The line that comes first where f16 is used.
const ENABLE_F16: &str = "enable f16;\n";

/// A module under construction.
pub(crate) struct Module<'a> {
    width: Width,
    baked: Baked<'a>,
    loads_pairs: bool,
    /// What of the language is enabled besides the f16 of buffers.
    enabled: Vec<&'static str>,
    bindings: Vec<Binding>,
    parameters: Vec<Parameter>,
    sizes: Vec<u32>,
    text: String,
}

/// A module that is complete.
pub(crate) struct Finished {
    pub(crate) text: String,
    pub(crate) bindings: Vec<(Slot, Access)>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) sizes: Vec<u32>,
}

/// The name of a dtype's elements in expressions, for either width: f16 is held as f32.
pub(crate) fn alias(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "Mask",
        DType::I32 => "Int",
        DType::U32 => "Word",
        DType::F16 | DType::F32 | DType::F64 => "Real",
    }
}

/// The scalar WGSL type of a dtype's elements in memory: booleans are words.
pub(crate) fn stored(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool | DType::U32 => "u32",
        DType::I32 => "i32",
        DType::F16 => "f16",
        DType::F32 | DType::F64 => "f32",
    }
}

impl<'a> Module<'a> {
    pub(crate) fn new(width: Width, baked: Baked<'a>, loads_pairs: bool) -> Module<'a> {
        Module {
            width,
            baked,
            loads_pairs,
            enabled: Vec::new(),
            bindings: Vec::new(),
            parameters: Vec::new(),
            sizes: Vec::new(),
            text: String::new(),
        }
    }

    pub(crate) fn width(&self) -> Width {
        self.width
    }

    /// Adds text at the module's top level.
    pub(crate) fn add(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Enables an extension of the language.
    pub(crate) fn enable(&mut self, extension: &'static str) {
        self.enabled.push(extension);
    }

    /// Adds a function of one expression.
    pub(crate) fn function(&mut self, signature: &str, value: &str) {
        let _ = writeln!(self.text, "fn {signature} {{\n    return {value};\n}}");
    }

    /// The name of a binding of `slot` as an array of `element`, which may be shared with earlier uses.
    pub(crate) fn bind(&mut self, slot: Slot, element: &str, access: Access) -> String {
        let same = |b: &Binding| b.slot == slot && (b.element == element || b.access == Access::ReadWrite);
        let at = self.bindings.iter().position(same).unwrap_or_else(|| {
            self.bind_as(&format!("buffer{}", self.bindings.len()), slot, element, access);
            self.bindings.len() - 1
        });
        self.bindings[at].name.clone()
    }

    /// A function that gives four neighbouring elements of `slot` as they are in memory, by the number of such a vector.
    pub(crate) fn vectors(&mut self, slot: Slot, dtype: DType) -> impl Fn(&str) -> String + use<> {
        let element = stored(dtype);
        let is_written = self.bindings.iter().any(|b| b.slot == slot && b.access == Access::ReadWrite);
        let in_pairs = self.loads_pairs && element != stored(DType::F16) && !is_written;
        let vector = if in_pairs { "vec2<u64>".into() } else { format!("vec4<{element}>") };
        let array = self.bind(slot, &vector, Access::Read);
        move |at: &str| match in_pairs {
            true => format!("bitcast<vec4<{element}>>(words_of({array}[{at}]))"),
            false => format!("{array}[{at}]"),
        }
    }

    /// A binding of its own for `slot`, under a name.
    pub(crate) fn bind_as(&mut self, name: &str, slot: Slot, element: &str, access: Access) {
        self.bindings.push(Binding { name: name.into(), slot, element: element.into(), access });
    }

    /// A size of the kernel. 0 and ±1 shape the text; others are written into it or passed at run time.
    pub(crate) fn size(&mut self, value: i64) -> String {
        // Addresses wrap around, so that a negative stride is a large word.
        let word = value as u32;
        if value.unsigned_abs() <= 1 {
            return format!("{word}u");
        }
        self.sizes.push(word);
        let is_baked = self.baked.get(self.sizes.len() - 1).copied().unwrap_or(false);
        if is_baked { format!("{word}u") } else { self.parameter(Parameter::Word(word)) }
    }

    /// How many invocations have work. A single one is not told to the compiler: Mesa 22.3's lavapipe gets some arithmetic
    /// wrong where it knows that there is only one.
    pub(crate) fn count(&mut self, value: usize) -> String {
        if value == 1 { self.parameter(Parameter::Word(1)) } else { self.size(value as i64) }
    }

    /// A word that is passed at run time.
    pub(crate) fn parameter(&mut self, parameter: Parameter) -> String {
        let at = self.parameters.iter().position(|p| *p == parameter && !matches!(p, Parameter::Word(_)));
        let at = at.unwrap_or_else(|| {
            self.parameters.push(parameter);
            self.parameters.len() - 1
        });
        format!("parameters.word{at}")
    }

    /// Whether some array is of f16.
    fn has_f16(&self) -> bool {
        self.bindings.iter().any(|binding| binding.element.contains(stored(DType::F16)))
    }

    /// How many words are passed at run time.
    pub(crate) fn parameter_words(&self) -> usize {
        self.parameters.len()
    }

    /// The module's text: aliases, declarations, the skeleton, the hooks added so far, and what they call.
    pub(crate) fn finish(self, skeleton: &str, declared: Parameters) -> Finished {
        let mut text = String::new();
        let mut types = vec![("Real", "f32"), ("Int", "i32"), ("Word", "u32"), ("Mask", "bool")];
        if self.has_f16() {
            text.push_str(ENABLE_F16);
            types.push(("Half", "f16"));
        }
        for extension in self.enabled.iter().filter(|&&extension| extension != "f16" || !self.has_f16()) {
            let _ = writeln!(text, "enable {extension};");
        }
        for (alias, scalar) in types {
            let _ = match self.width {
                Width::Scalar => writeln!(text, "alias {alias} = {scalar};"),
                Width::Vector => writeln!(text, "alias {alias} = vec4<{scalar}>;"),
            };
        }
        self.declare(&mut text, declared);
        if self.bindings.iter().any(|binding| binding.element == "vec2<u64>") {
            text.push_str(gradus_shaders::PAIRS);
        }
        let own = format!("\n{skeleton}\n{}", self.text);
        for item in library::needed_by(&own) {
            text.push_str(item);
            text.push('\n');
        }
        text.push_str(&own);
        self.finished(text)
    }

    /// Declarations, the functions added so far, and then text that is not the library's, to the end but for a line break.
    pub(crate) fn finish_as_written(self, written: &str, declared: Parameters) -> Finished {
        let mut text = String::from(if self.has_f16() { ENABLE_F16 } else { "" });
        self.declare(&mut text, declared);
        text.push_str(&self.text);
        text.push_str(written);
        text.push('\n');
        self.finished(text)
    }

    fn declare(&self, text: &mut String, declared: Parameters) {
        for (i, Binding { name, slot, element, access }) in self.bindings.iter().enumerate() {
            let access = if *access == Access::ReadWrite { "read_write" } else { "read" };
            let element = if *slot == Slot::Status { "atomic<u32>" } else { element };
            let _ = writeln!(text, "@group(0) @binding({i}) var<storage, {access}> {name}: array<{element}>;");
        }
        if declared != Parameters::None {
            text.push_str("struct Parameters {\n");
            for i in 0..self.parameters.len() {
                let _ = writeln!(text, "    word{i}: u32,");
            }
            text.push_str("}\n");
        }
        text.push_str(&declared.declaration("parameters", "Parameters"));
    }

    fn finished(self, text: String) -> Finished {
        Finished {
            text,
            bindings: self.bindings.iter().map(|b| (b.slot, b.access)).collect(),
            parameters: self.parameters,
            sizes: self.sizes,
        }
    }
}
