//! Ops of the user.

use gradus_ir::op::custom::{Custom, CustomInput, CustomOutput};
use gradus_ir::plan::Kernel;
use gradus_ir::{Data, Result, Shape};

/// A user's op made ready.
#[derive(Debug)]
pub(crate) struct CustomStep {
    op: Custom,
    inputs: Vec<Shape>,
    output: Shape,
}

impl CustomStep {
    /// Prepares a kernel.
    pub(crate) fn new(kernel: &Kernel, op: &Custom) -> CustomStep {
        let inputs = kernel.loads.iter().map(|load| load.view.shape()).collect();
        CustomStep { op: op.clone(), inputs, output: kernel.space.clone() }
    }

    /// Runs it on whole buffers.
    pub(crate) fn run(&self, loads: &[&Data], out: &mut Data) -> Result<()> {
        let inputs: Vec<CustomInput<'_>> =
            self.inputs.iter().zip(loads).map(|(shape, data)| CustomInput::new(shape, data)).collect();
        self.op.run_on_cpu(&inputs, &mut CustomOutput::new(&self.output, out))
    }
}
