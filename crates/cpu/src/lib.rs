//! The CPU backend, and [`reference`](mod@reference), the naive interpreter that every backend is compared with.
//!
//! Kernels are evaluated one cache-sized block at a time, in loops compiled for the machine's vector instructions;
//! matrix products run on the `gemm` crate. Work is cut into fixed pieces, so that bits do not depend on the number of
//! threads.

mod address;
mod attention;
mod block;
mod ceilings;
mod chain_loops;
mod chains;
mod contract;
mod custom;
mod executable;
mod fold;
mod homes;
mod loops;
mod matrix;
mod memory;
mod parallel;
pub mod reference;
mod registers;
mod rows;
mod scan;
mod scatter;
mod slice;
mod sort;
mod sources;

pub use ceilings::{copy, multiply_add_rate};
use executable::CpuExecutable;
use gradus_ir::{Backend, Buffer, DType, Data, Download, Error, Executable, MemoryStats, Plan, Result, Stats, Target};
use memory::{Array, Memory};
use std::sync::Arc;

/// The CPU as a device.
#[derive(Debug)]
pub struct Cpu {
    target: Target,
    memory: Arc<Memory>,
    threads: Option<Arc<rayon::ThreadPool>>,
}

impl Cpu {
    /// A CPU device on rayon's global threads, or on `threads` of its own, with a budget of `memory_limit` bytes.
    pub fn new(threads: Option<usize>, memory_limit: Option<usize>) -> Result<Cpu> {
        let threads = match threads {
            None => None,
            Some(n) => {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build();
                Some(Arc::new(pool.map_err(|e| Error::Backend(format!("cannot start {n} threads: {e}")))?))
            }
        };
        let memory = Arc::new(Memory::with_limit(memory_limit));
        Ok(Cpu {
            target: Target { dtypes: DType::ALL.to_vec(), bindings: 32, longest_row: usize::MAX },
            memory,
            threads,
        })
    }
}

impl Backend for Cpu {
    fn description(&self) -> String {
        let threads = self.threads.as_ref().map_or_else(rayon::current_num_threads, |pool| pool.current_num_threads());
        format!("cpu ({threads} threads)")
    }

    fn target(&self) -> &Target {
        &self.target
    }

    fn compile(&self, plan: Plan) -> Result<Box<dyn Executable>> {
        Ok(Box::new(CpuExecutable::new(plan, self.memory.clone(), self.threads.clone())?))
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
