//! The adapters of this machine, and what each can do.

use std::fmt;
use std::sync::OnceLock;
use wgpu::{Backend, DeviceType, Features};

/// What sort of device an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the CPU's memory.
    Integrated,
    /// A GPU lent to a virtual machine.
    Virtual,
    /// A driver that runs shaders on the CPU (lavapipe, WARP, SwiftShader).
    Software,
    /// Hardware of which the driver does not say what it is.
    Other,
}

impl Kind {
    /// The sort as a word.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Discrete => "discrete",
            Kind::Integrated => "integrated",
            Kind::Virtual => "virtual",
            Kind::Software => "software",
            Kind::Other => "other",
        }
    }

    fn of(kind: DeviceType) -> Kind {
        match kind {
            DeviceType::DiscreteGpu => Kind::Discrete,
            DeviceType::IntegratedGpu => Kind::Integrated,
            DeviceType::VirtualGpu => Kind::Virtual,
            DeviceType::Cpu => Kind::Software,
            DeviceType::Other => Kind::Other,
        }
    }

    /// The order in which adapters are listed, and preferred.
    pub(crate) fn rank(self) -> u8 {
        match self {
            Kind::Discrete => 0,
            Kind::Integrated => 1,
            Kind::Virtual => 2,
            Kind::Other => 3,
            Kind::Software => 4,
        }
    }
}

/// What an adapter says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What users write: `gpu:0`, `gpu:1` … for hardware, `software`, `software:1` … for software; `external` for the
    /// adapter of a device that a program brought along.
    pub id: String,
    /// Name of the device.
    pub name: String,
    /// Name of the driver.
    pub driver: String,
    /// Version of the driver, in its own words.
    pub driver_info: String,
    /// What sort of device it is.
    pub kind: Kind,
    /// Name of wgpu's back end: `Vulkan`, `Metal`, `Dx12`.
    pub backend: &'static str,
    /// Whether the same device is also listed, further ahead, through another back end.
    pub duplicate: bool,
    /// The vendor's number, as the back end gives it.
    pub vendor: u32,
    /// The vendor's number of the device.
    pub device: u32,
}

impl Description {
    pub(crate) fn of(info: &wgpu::AdapterInfo, id: &str) -> Description {
        Description {
            id: id.into(),
            name: info.name.clone(),
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
            kind: Kind::of(info.device_type),
            backend: backend_name(info.backend),
            duplicate: false,
            vendor: info.vendor,
            device: info.device,
        }
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}, {})", self.id, self.name, self.kind.name(), self.backend)
    }
}

/// Something that shaders or this crate can use where an adapter has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it is, in a word or two.
    pub name: &'static str,
    /// Whether the adapter has it.
    pub present: bool,
    /// More about it, such as sizes; often empty.
    pub detail: String,
}

/// An adapter that wgpu found.
#[derive(Clone, Debug)]
pub struct Adapter {
    wgpu: wgpu::Adapter,
    description: Description,
}

impl Adapter {
    /// Every adapter that wgpu finds: hardware first (discrete, integrated, virtual, other), then the same hardware
    /// through further back ends, then software. Honours `WGPU_BACKEND` and wgpu's other variables. The first call may
    /// be slow: it loads the drivers.
    pub fn all() -> Vec<Adapter> {
        let found = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::all()));
        let mut adapters: Vec<Adapter> = found
            .into_iter()
            .map(|wgpu| Adapter { description: Description::of(&wgpu.get_info(), ""), wgpu })
            .collect();
        let descriptions: Vec<Description> = adapters.iter().map(|a| a.description.clone()).collect();
        let mut ordered = Vec::with_capacity(adapters.len());
        let mut taken: Vec<Option<Adapter>> = adapters.drain(..).map(Some).collect();
        for (index, description) in in_order(&descriptions) {
            if let Some(adapter) = taken[index].take() {
                ordered.push(Adapter { description, ..adapter });
            }
        }
        ordered
    }

    /// What users write to name it: `gpu:0`, `gpu:1` … for hardware, `software`, `software:1` … for software.
    pub fn id(&self) -> &str {
        &self.description.id
    }

    /// Name of the device.
    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// Name of the driver.
    pub fn driver(&self) -> &str {
        &self.description.driver
    }

    /// Version of the driver, in its own words.
    pub fn driver_info(&self) -> &str {
        &self.description.driver_info
    }

    /// What sort of device it is.
    pub fn kind(&self) -> Kind {
        self.description.kind
    }

    /// Name of wgpu's back end: `Vulkan`, `Metal`, `Dx12`.
    pub fn backend(&self) -> &'static str {
        self.description.backend
    }

    /// All of the above.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The features that it offers, wgpu's way.
    pub fn features(&self) -> Features {
        self.wgpu.features()
    }

    /// The limits that it offers, wgpu's way.
    pub fn limits(&self) -> wgpu::Limits {
        self.wgpu.limits()
    }

    /// What it has of that which makes a difference to kernels.
    pub fn capabilities(&self) -> Vec<Capability> {
        let (features, info) = (self.features(), self.wgpu.get_info());
        let row = |name, feature, detail: String| {
            let present = features.contains(feature);
            Capability { name, present, detail: if present { detail } else { String::new() } }
        };
        let subgroups = match (info.subgroup_min_size, info.subgroup_max_size) {
            (least, most) if least == most => format!("size {least}"),
            (least, most) => format!("size {least} to {most}"),
        };
        let matrices: Vec<String> = self.wgpu.cooperative_matrix_properties().iter().map(matrix_text).collect();
        vec![
            row("f16", Features::SHADER_F16, String::new()),
            row("subgroups", Features::SUBGROUP, subgroups),
            row("immediates", Features::IMMEDIATES, format!("{} bytes", self.limits().max_immediate_size)),
            row("timestamps", Features::TIMESTAMP_QUERY, String::new()),
            row("float atomics", Features::SHADER_FLOAT32_ATOMIC, String::new()),
            row("mappable buffers", Features::MAPPABLE_PRIMARY_BUFFERS, String::new()),
            row("pipeline cache", Features::PIPELINE_CACHE, String::new()),
            Capability { name: "cooperative matrix", present: !matrices.is_empty(), detail: matrices.join(", ") },
        ]
    }

    /// Whether it has cooperative matrices of 16 by 16 numbers of f16 whose products are summed up in f32.
    pub(crate) fn multiplies_f16(&self) -> bool {
        use wgpu::CooperativeScalarType::{F16, F32};
        self.wgpu
            .cooperative_matrix_properties()
            .iter()
            .any(|p| (p.m_size, p.n_size, p.k_size) == (16, 16, 16) && (p.ab_type, p.cr_type) == (F16, F32))
    }

    /// wgpu's adapter.
    pub fn wgpu(&self) -> &wgpu::Adapter {
        &self.wgpu
    }
}

fn matrix_text(p: &wgpu::CooperativeMatrixProperties) -> String {
    format!("{}x{}x{} {:?} to {:?}", p.m_size, p.n_size, p.k_size, p.ab_type, p.cr_type).to_lowercase()
}

fn backend_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Vulkan => "Vulkan",
        Backend::Metal => "Metal",
        Backend::Dx12 => "Dx12",
        Backend::Gl => "Gl",
        Backend::BrowserWebGpu => "WebGPU",
        Backend::Noop => "Noop",
    }
}

/// The process's instance of wgpu. One is enough, and making one loads every driver.
fn instance() -> &'static wgpu::Instance {
    static INSTANCE: OnceLock<wgpu::Instance> = OnceLock::new();
    INSTANCE.get_or_init(|| {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        // Costs a few pipelines for each device, and guards indirect draws and dispatches, which we do not use.
        descriptor.flags.remove(wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL);
        wgpu::Instance::new(descriptor.with_env())
    })
}

/// The order in which to list adapters: positions in `found`, with descriptions that have their ids.
fn in_order(found: &[Description]) -> Vec<(usize, Description)> {
    let preference = |d: &Description| ["Vulkan", "Metal", "Dx12"].iter().position(|b| *b == d.backend).unwrap_or(3);
    // Two cards of one model are told from one card seen twice by counting within each back end.
    let nth = |index: usize| {
        let d = &found[index];
        found[..index].iter().filter(|o| (o.backend, o.vendor, o.device) == (d.backend, d.vendor, d.device)).count()
    };
    let seen_before = |index: usize| {
        let d = &found[index];
        (0..found.len()).any(|other| {
            let o = &found[other];
            (o.vendor, o.device) == (d.vendor, d.device) && preference(o) < preference(d) && nth(other) == nth(index)
        })
    };
    let mut ordered: Vec<(usize, Description)> =
        found.iter().enumerate().map(|(i, d)| (i, Description { duplicate: seen_before(i), ..d.clone() })).collect();
    // A stable sort: what is equal stays in the order of the driver.
    ordered.sort_by_key(|(_, d)| (d.kind == Kind::Software, d.duplicate, d.kind.rank(), preference(d)));
    let (mut hardware, mut software) = (0, 0);
    for (_, description) in &mut ordered {
        let (prefix, count) = match description.kind {
            Kind::Software => ("software", &mut software),
            _ => ("gpu", &mut hardware),
        };
        description.id = match (prefix, *count) {
            ("software", 0) => "software".into(),
            (prefix, n) => format!("{prefix}:{n}"),
        };
        *count += 1;
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, kind: Kind, backend: &'static str, device: u32) -> Description {
        let (driver, driver_info) = (String::new(), String::new());
        let (id, name) = (String::new(), name.into());
        Description { id, name, driver, driver_info, kind, backend, duplicate: false, vendor: 1, device }
    }

    #[test]
    fn hardware_first_then_duplicates_then_software() {
        let list = [
            found("WARP", Kind::Software, "Dx12", 9),
            found("Iris", Kind::Integrated, "Dx12", 2),
            found("RTX", Kind::Discrete, "Dx12", 1),
            found("RTX", Kind::Discrete, "Dx12", 1),
            found("Iris", Kind::Integrated, "Vulkan", 2),
            found("RTX", Kind::Discrete, "Vulkan", 1),
            found("RTX", Kind::Discrete, "Vulkan", 1),
            found("lavapipe", Kind::Software, "Vulkan", 8),
        ];
        let ordered: Vec<String> = in_order(&list).iter().map(|(i, d)| format!("{i} {d}")).collect();
        assert_eq!(
            ordered,
            [
                "5 gpu:0 (RTX, discrete, Vulkan)",
                "6 gpu:1 (RTX, discrete, Vulkan)",
                "4 gpu:2 (Iris, integrated, Vulkan)",
                "2 gpu:3 (RTX, discrete, Dx12)",
                "3 gpu:4 (RTX, discrete, Dx12)",
                "1 gpu:5 (Iris, integrated, Dx12)",
                "7 software (lavapipe, software, Vulkan)",
                "0 software:1 (WARP, software, Dx12)",
            ]
        );
    }
}
