//! Pipelines: shaders compiled, and found again by their text.

use crate::device::{Device, Inner};
use crate::generations::Generations;
use crate::scope::scoped;
use crate::statistics::count;
use crate::{Error, Parameters};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wgpu::{BindGroupLayoutEntry, BindingType, BufferBindingType, ShaderStages};

/// How many pipelines, and layouts of them, are kept: the last this many that were asked for, at most twice as many.
const CAPACITY: usize = 1024;

/// What a kernel does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// Who wrote a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The library: it guarantees that every loop ends, and that no integer is divided by zero, nor the least one by
    /// -1. Indices are checked nevertheless: that was found to cost nothing in most kernels.
    Trusted,
    /// The library, which guarantees besides that every index is within its array: for kernels whose innermost loop reads
    /// workgroup memory.
    InBounds,
    /// Somebody else: all of wgpu's checks are on.
    Checked,
}

/// A compiled kernel: a handle that clones cheaply.
#[derive(Clone, Debug)]
pub struct Pipeline(pub(crate) Arc<Compiled>);

#[derive(Debug)]
pub(crate) struct Compiled {
    /// Tells pipelines of this process apart.
    pub(crate) number: u64,
    /// The device that compiled it.
    pub(crate) device: u64,
    pub(crate) label: String,
    pub(crate) wgpu: wgpu::ComputePipeline,
    pub(crate) layout: Arc<GroupLayout>,
    pub(crate) words: usize,
    pub(crate) parameters: Parameters,
}

impl Pipeline {
    /// The label that it was compiled with.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// How many buffers it takes, and what it does with each.
    pub fn bindings(&self) -> &[Access] {
        &self.0.layout.bindings
    }

    /// How many `u32` parameters it takes.
    pub fn parameter_words(&self) -> usize {
        self.0.words
    }
}

/// The layout of a bind group of storage buffers.
#[derive(Debug)]
pub(crate) struct GroupLayout {
    pub(crate) number: u64,
    pub(crate) bindings: SmallVec<[Access; 8]>,
    pub(crate) wgpu: wgpu::BindGroupLayout,
}

#[derive(Debug)]
struct Layout {
    group: Arc<GroupLayout>,
    wgpu: wgpu::PipelineLayout,
}

type Shape = (SmallVec<[Access; 8]>, Parameters, usize);

/// All pipelines of a device, and the layouts that they share.
#[derive(Debug)]
pub(crate) struct Pipelines {
    groups: Generations<SmallVec<[Access; 8]>, Arc<GroupLayout>>,
    uniform: Option<wgpu::BindGroupLayout>,
    layouts: Generations<Shape, Arc<Layout>>,
    compiled: Generations<(Arc<str>, Shape, Trust), Pipeline>,
}

impl Pipelines {
    pub(crate) fn new() -> Pipelines {
        let (groups, layouts) = (Generations::new(CAPACITY), Generations::new(CAPACITY));
        Pipelines { groups, uniform: None, layouts, compiled: Generations::new(CAPACITY) }
    }
}

impl Device {
    /// Compiles a compute shader with one entry point, or finds it again: equal text, shape and trust are one pipeline,
    /// under the first label that it got.
    ///
    /// Binding `i` of group 0 is a storage buffer with the access `bindings[i]`. `parameter_words` is how many `u32`
    /// the kernel takes besides, declared as [`Device::parameters`] says. Workgroup memory is not cleared.
    ///
    /// Fails with [`Error::Shader`] where the shader does not compile, and with [`Error::Argument`] where it wants more
    /// buffers or parameters than the device allows.
    pub fn pipeline(
        &self,
        label: &str,
        source: &str,
        bindings: &[Access],
        parameter_words: usize,
        trust: Trust,
    ) -> Result<Pipeline, Error> {
        let inner = &*self.0;
        inner.check()?;
        let too_many = |what: &str, most: usize, found: usize| {
            let message = format!("{found} {what} are more than {most}, the most on {}", inner.description.name);
            Err(Error::Argument { what: format!("kernel \"{label}\""), message })
        };
        let limits = &inner.limits;
        if bindings.len() > limits.storage_buffers {
            return too_many("buffers", limits.storage_buffers, bindings.len());
        }
        if parameter_words > limits.parameter_words {
            return too_many("parameter words", limits.parameter_words, parameter_words);
        }
        let parameters = self.parameters(parameter_words);
        let shape: Shape = (bindings.into(), parameters, parameter_words);
        let key = (Arc::from(source), shape.clone(), trust);
        let layout = {
            let mut pipelines = inner.pipelines();
            if let Some(found) = pipelines.compiled.get(&key) {
                return Ok(found.clone());
            }
            pipelines.layout(inner, &shape)?
        };
        // Several threads compile side by side; of two that compile the same text, the first to end wins.
        let wgpu = inner.compile(label, source, &layout.wgpu, trust)?;
        let mut pipelines = inner.pipelines();
        if let Some(found) = pipelines.compiled.get(&key) {
            return Ok(found.clone());
        }
        let pipeline = Pipeline(Arc::new(Compiled {
            number: next_number(),
            device: inner.number,
            label: label.into(),
            wgpu,
            layout: layout.group.clone(),
            words: parameter_words,
            parameters,
        }));
        pipelines.compiled.insert(key, pipeline.clone());
        count(&inner.counters.pipelines, 1);
        Ok(pipeline)
    }
}

fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

impl Pipelines {
    fn layout(&mut self, inner: &Inner, shape: &Shape) -> Result<Arc<Layout>, Error> {
        if let Some(found) = self.layouts.get(shape) {
            return Ok(found.clone());
        }
        let (bindings, parameters, words) = shape;
        let group = self.group(inner, bindings)?;
        let uniform = match parameters {
            Parameters::Uniform => Some(self.uniform(inner)?),
            _ => None,
        };
        let groups = [Some(&group.wgpu), uniform.as_ref()];
        let immediate_size = if *parameters == Parameters::Immediates { 4 * *words as u32 } else { 0 };
        let wgpu = inner.create(|device| {
            device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: if uniform.is_some() { &groups } else { &groups[..1] },
                immediate_size,
            })
        })?;
        let layout = Arc::new(Layout { group, wgpu });
        self.layouts.insert(shape.clone(), layout.clone());
        Ok(layout)
    }

    fn group(&mut self, inner: &Inner, bindings: &SmallVec<[Access; 8]>) -> Result<Arc<GroupLayout>, Error> {
        if let Some(found) = self.groups.get(bindings) {
            return Ok(found.clone());
        }
        let entries: Vec<BindGroupLayoutEntry> = (0..)
            .zip(bindings)
            .map(|(i, access)| entry(i, BufferBindingType::Storage { read_only: *access == Access::Read }, false))
            .collect();
        let wgpu = inner.create_group_layout(&entries)?;
        let group = Arc::new(GroupLayout { number: next_number(), bindings: bindings.clone(), wgpu });
        self.groups.insert(bindings.clone(), group.clone());
        Ok(group)
    }

    /// The layout of the group that holds parameters where immediates cannot.
    pub(crate) fn uniform(&mut self, inner: &Inner) -> Result<wgpu::BindGroupLayout, Error> {
        if let Some(found) = &self.uniform {
            return Ok(found.clone());
        }
        let made = inner.create_group_layout(&[entry(0, BufferBindingType::Uniform, true)])?;
        Ok(self.uniform.insert(made).clone())
    }
}

fn entry(binding: u32, ty: BufferBindingType, has_dynamic_offset: bool) -> BindGroupLayoutEntry {
    let ty = BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None };
    BindGroupLayoutEntry { binding, visibility: ShaderStages::COMPUTE, ty, count: None }
}

impl Inner {
    /// Makes something of wgpu's that can fail only by our own mistake.
    pub(crate) fn create<R>(&self, make: impl FnOnce(&wgpu::Device) -> R) -> Result<R, Error> {
        match scoped(&self.wgpu, || make(&self.wgpu)) {
            (made, None) => Ok(made),
            (_, Some(error)) => Err(self.error(error, 0)),
        }
    }

    fn create_group_layout(&self, entries: &[BindGroupLayoutEntry]) -> Result<wgpu::BindGroupLayout, Error> {
        self.create(|device| device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries }))
    }

    fn compile(
        &self,
        label: &str,
        source: &str,
        layout: &wgpu::PipelineLayout,
        trust: Trust,
    ) -> Result<wgpu::ComputePipeline, Error> {
        let fail = |message: String, line: Option<u32>| {
            let source_text = numbered(source);
            Error::Shader { label: label.into(), message: message.trim().into(), line, source_text }
        };
        // naga has been seen to panic on shaders that it should refuse.
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let (module, error) = scoped(&self.wgpu, || self.shader_module(label, source, trust));
            if let Some(error) = error {
                let info = pollster::block_on(module.get_compilation_info());
                let line = info.messages.iter().find_map(|m| m.location).map(|l| l.line_number);
                return Err(fail(error.to_string(), line));
            }
            let (pipeline, error) = scoped(&self.wgpu, || {
                self.wgpu.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                    label: Some(label),
                    layout: Some(layout),
                    module: &module,
                    entry_point: None,
                    compilation_options: wgpu::PipelineCompilationOptions {
                        constants: &[],
                        zero_initialize_workgroup_memory: trust == Trust::Checked,
                    },
                    cache: None,
                })
            });
            match error {
                Some(error) => Err(fail(error.to_string(), None)),
                None => Ok(pipeline),
            }
        }));
        let compiled = attempt.unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default();
            Err(fail(format!("the compiler panicked: {said}"), None))
        });
        match compiled {
            // On a lost device wgpu returns a pipeline that is none, and no error; or an error that says nothing.
            Ok(pipeline) => self.notice().map(|()| pipeline),
            Err(_) if self.is_gone() => Err(self.lost_silently()),
            Err(error) => Err(error),
        }
    }

    fn shader_module(&self, label: &str, source: &str, trust: Trust) -> wgpu::ShaderModule {
        let source = wgpu::ShaderSource::Wgsl(Cow::Borrowed(source));
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source };
        match trust {
            Trust::Checked => self.wgpu.create_shader_module(descriptor),
            Trust::Trusted | Trust::InBounds => {
                let checks = wgpu::ShaderRuntimeChecks {
                    bounds_checks: trust == Trust::Trusted,
                    force_loop_bounding: false,
                    int_div_checks: false,
                    ..wgpu::ShaderRuntimeChecks::checked()
                };
                #[allow(unsafe_code)]
                // SAFETY: who passes these guarantees what the checks would make sure of: every loop ends, no integer is
                // divided by zero nor the least one by -1, and, of `InBounds`, indices are in range. Shaders are text of this
                // library's own making, and users' text goes through `Trust::Checked`.
                unsafe {
                    self.wgpu.create_shader_module_trusted(descriptor, checks)
                }
            }
        }
    }
}

/// A text with the number of each line in front of it.
fn numbered(text: &str) -> String {
    text.lines().enumerate().map(|(i, line)| format!("{:4} {line}\n", i + 1)).collect()
}
