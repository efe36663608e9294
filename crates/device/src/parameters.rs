//! How the small numbers that change from launch to launch reach a kernel.

/// How a shader declares its parameters, a struct of `u32` members (or others of 4 bytes) called `Parameters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parameters {
    /// It has none.
    None,
    /// `var<immediate> parameters: Parameters;` — they travel with the launch.
    Immediates,
    /// `@group(1) @binding(0) var<uniform> parameters: Parameters;` — they lie in a buffer of ours.
    Uniform,
}

impl Parameters {
    /// The declaration of a variable `name` of type `of`, with a line break; nothing for [`Parameters::None`].
    pub fn declaration(self, name: &str, of: &str) -> String {
        match self {
            Parameters::None => String::new(),
            Parameters::Immediates => format!("var<immediate> {name}: {of};\n"),
            Parameters::Uniform => format!("@group(1) @binding(0) var<uniform> {name}: {of};\n"),
        }
    }
}
