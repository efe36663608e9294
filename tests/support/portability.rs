//! Kernels for machines that are not here: naga validates a shader and translates it to SPIR-V, MSL and HLSL, as wgpu
//! would on Vulkan, Metal and DX12.

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// Says what is wrong with a shader, if anything is.
pub(crate) fn translate(source: &str) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string(source))?;
    let mut capabilities =
        Capabilities::IMMEDIATES | Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16 | Capabilities::SHADER_INT64;
    // naga writes them for no other language than SPIR-V where all are of 16 by 16.
    let is_cooperative = source.contains("enable wgpu_cooperative_matrix;");
    if is_cooperative {
        capabilities |= Capabilities::COOPERATIVE_MATRIX;
    }
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|error| error.emit_to_string(source))?;

    let options =
        spv::Options { lang_version: if is_cooperative { (1, 3) } else { (1, 0) }, ..spv::Options::default() };
    let words = spv::write_vec(&module, &info, &options, None).map_err(|e| format!("SPIR-V: {e}"))?;
    if is_cooperative {
        return if words.is_empty() { Err("SPIR-V: nothing was written".into()) } else { Ok(()) };
    }
    let options = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..msl::Options::default() };
    let (metal, _) = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
        .map_err(|error| format!("MSL: {error}"))?;
    let options = hlsl::Options {
        fake_missing_bindings: true,
        immediates_target: Some(hlsl::BindTarget::default()),
        ..hlsl::Options::default()
    };
    let mut direct = String::new();
    hlsl::Writer::new(&mut direct, &options, &hlsl::PipelineOptions::default())
        .write(&module, &info, None)
        .map_err(|error| format!("HLSL: {error}"))?;
    for (language, length) in [("SPIR-V", words.len()), ("MSL", metal.len()), ("HLSL", direct.len())] {
        if length == 0 {
            return Err(format!("{language}: nothing was written"));
        }
    }
    Ok(())
}
