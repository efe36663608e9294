//! The ops of the user. They run as they are, in the dtypes that they declare: also where f32 is promoted to f64.

use super::Array;
use gradus_ir::op::Type;
use gradus_ir::op::custom::{Custom, CustomInput, CustomOutput};
use gradus_ir::{DType, Data, Element, Number, Result, with_data, with_dtype};

/// Runs the CPU function. How an op hands on its operands' errors and what its WGSL rounds is not known, so that its bound
/// is infinite.
pub(super) fn evaluate(op: &Custom, operands: &[&Array], ty: &Type) -> Result<Array> {
    let declared = op.inputs.iter().map(|(_, dtype)| *dtype);
    let data: Vec<Data> = operands.iter().zip(declared).map(|(x, dtype)| as_data(&x.values, dtype)).collect();
    let inputs: Vec<CustomInput<'_>> =
        operands.iter().zip(&data).map(|(x, data)| CustomInput::new(&x.ty.shape, data)).collect();
    let mut output = as_data(&vec![0.0; ty.shape.numel()], op.dtype);
    op.run_on_cpu(&inputs, &mut CustomOutput::new(&ty.shape, &mut output))?;
    let values: Vec<f64> = with_data!(&output, v => v.iter().map(|&x| Number::from(x).to_f64()).collect());
    Ok(Array { ty: ty.clone(), errors: vec![f64::INFINITY; values.len()], values })
}

fn as_data(values: &[f64], dtype: DType) -> Data {
    with_dtype!(dtype, T => T::wrap(values.iter().map(|&x| T::from_number(Number::Float(x))).collect()))
}
