//! The CPU backend, and [`reference`](mod@reference), the naive interpreter that every backend is compared with.
//!
//! Kernels are evaluated one cache-sized block at a time, in loops compiled for the machine's vector instructions;
//! matrix products run on the `gemm` crate. Work is cut into fixed pieces, so that bits do not depend on the number of
//! threads.

mod address;
mod ahead;
mod attention;
mod best;
mod block;
mod ceilings;
mod chains;
mod contract;
mod custom;
mod dots;
mod executable;
mod fold;
mod gather;
mod loops;
mod matrix;
mod memory;
mod parallel;
pub mod reference;
mod registers;
mod rows;
mod scan;
mod scatter;
mod select;
mod slice;
mod sort;
mod sources;
mod team;
mod winograd;

pub use ceilings::{copy, multiply_add_rate};
use executable::CpuExecutable;
use gradus_ir::{Backend, Buffer, DType, Data, Download, Error, Executable, MemoryStats, Plan, Result, Stats, Target};
use memory::{Array, Memory};
use std::sync::Arc;
use team::Team;

/// The CPU as a device.
#[derive(Debug)]
pub struct Cpu {
    target: Target,
    memory: Arc<Memory>,
    /// Its own threads, if it was asked for some.
    team: Option<Arc<Team>>,
}

impl Cpu {
    /// A CPU device on the threads that all share, as many as run at once or as `GRADUS_THREADS` says, or on `threads` of its own, with
    /// a budget of `memory_limit` bytes.
    pub fn new(threads: Option<usize>, memory_limit: Option<usize>) -> Result<Cpu> {
        let team = threads.map(|threads| Team::new(threads).map(Arc::new)).transpose()?;
        let memory = Arc::new(Memory::with_limit(memory_limit));
        Ok(Cpu {
            target: Target {
                dtypes: DType::ALL.to_vec(),
                bindings: 32,
                longest_row: usize::MAX,
                joins_gradients: true,
            },
            memory,
            team,
        })
    }
}

impl Backend for Cpu {
    fn description(&self) -> String {
        match self.team.as_ref().map_or_else(team::global_size, |team| Ok(team.size())) {
            Ok(threads) => format!("cpu ({threads} threads)"),
            Err(error) => format!("cpu ({error})"),
        }
    }

    fn target(&self) -> &Target {
        &self.target
    }

    fn compile(&self, plan: Plan) -> Result<Box<dyn Executable>> {
        Ok(Box::new(CpuExecutable::new(plan, self.memory.clone(), self.team.clone())?))
    }

    fn upload(&self, data: Data) -> Result<Buffer> {
        Ok(Buffer::new(self.memory.adopt(data)?))
    }

    fn download(&self, buffer: &Buffer) -> Download {
        Box::pin(std::future::ready(self.read(buffer)))
    }

    fn read(&self, buffer: &Buffer) -> Result<Data> {
        match buffer.get::<Array>() {
            Some(array) => Ok(array.data.clone()),
            None => Err(Error::Backend("a buffer of another backend".into())),
        }
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> MemoryStats {
        self.memory.stats()
    }

    fn stats(&self) -> Stats {
        self.memory.work()
    }
}
