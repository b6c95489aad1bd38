//! The keys and values of past positions in the GPU's memory, in pages of 64 positions that rows can share, and what a
//! pass needs to run.

use rustc_hash::FxHashMap;

use super::gpu::{Gpu, Graph, Memory};
use super::kernel::PAGE_POSITIONS;
use super::plan::Wanted;
use super::scratch::Scratch;
use super::shape::NetworkShape;
use crate::error::Result;
use crate::model::network;
use crate::model::paging::{PageId, PageMemory, PagedRows};

/// How many graphs are kept; more kinds of passes than this hardly ever repeat.
const MOST_GRAPHS: usize = 64;

/// A cache for any number of rows; a row is created, empty, when it is first named.
#[derive(Debug)]
pub struct Cache {
    /// Pages of 64 positions of all layers.
    pub rows: PagedRows<Pages>,
    pub scratch: Scratch,
    pub graphs: Graphs,
}

impl Cache {
    /// An empty cache.
    pub fn new(gpu: &Gpu, shape: NetworkShape) -> Self {
        let (bytes, pages_per_slab) = (shape.page_bytes(), shape.slab_pages());
        let pages = Pages { gpu: gpu.clone(), bytes, pages_per_slab, slabs: vec![] };
        Self {
            rows: PagedRows::new(pages, PAGE_POSITIONS),
            scratch: Scratch::new(gpu, shape),
            graphs: Graphs::default(),
        }
    }
}

impl network::Cache for Cache {
    fn len(&self, row: usize) -> usize {
        self.rows.len(row)
    }

    fn truncate(&mut self, row: usize, len: usize) {
        self.rows.truncate(row, len);
    }

    fn assign(&mut self, moves: &[(usize, usize)]) {
        self.rows.assign(moves);
    }
}

/// Memory for pages.
#[derive(Debug)]
pub struct Pages {
    gpu: Gpu,
    /// Bytes of a page.
    bytes: usize,
    pages_per_slab: usize,
    slabs: Vec<Memory>,
}

impl Pages {
    /// The address of a page.
    pub fn address(&self, id: PageId) -> u64 {
        let (slab, at) = self.place(id);
        slab.address() + at as u64
    }

    fn place(&self, id: PageId) -> (&Memory, usize) {
        (&self.slabs[id.0 / self.pages_per_slab], id.0 % self.pages_per_slab * self.bytes)
    }
}

impl PageMemory for Pages {
    fn grow(&mut self) -> Result<usize> {
        self.slabs.push(self.gpu.zeros(self.pages_per_slab * self.bytes)?);
        Ok(self.pages_per_slab)
    }

    fn copy(&mut self, from: PageId, to: PageId) -> Result<()> {
        self.gpu.copy(self.place(from), self.place(to), self.bytes)
    }

    /// Positions that a row does not have yet get a weight of 0, which does not hide NaN.
    fn renew(&mut self, id: PageId) -> Result<()> {
        let (slab, at) = self.place(id);
        self.gpu.clear(slab, at, self.bytes)
    }
}

/// What identifies a decoding pass: everything its launches depend on, except the contents of buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GraphKey {
    /// Rows, each with one new token.
    pub rows: usize,
    /// The outputs wanted.
    pub wanted: Wanted,
    /// Pages that attention covers.
    pub pages: usize,
}

/// Passes as graphs. A launch costs the host more than most kernels take; a whole graph costs as much as one launch.
#[derive(Debug, Default)]
pub struct Graphs {
    /// `None` for a pass that was seen once: recording only pays off for repeated passes.
    known: FxHashMap<GraphKey, Option<Graph>>,
    /// The buffers that the graphs were recorded with.
    generation: usize,
}

impl Graphs {
    /// Whether a pass like this was run before with the same buffers. Remembers it.
    pub fn seen(&mut self, key: GraphKey, generation: usize) -> bool {
        if self.generation != generation || self.known.len() > MOST_GRAPHS {
            self.known.clear();
            self.generation = generation;
        }
        self.known.insert(key, None).is_some()
    }

    /// The graph of a pass, if it was recorded with the same buffers.
    pub fn get(&self, key: GraphKey, generation: usize) -> Option<&Graph> {
        self.known.get(&key).filter(|_| self.generation == generation)?.as_ref()
    }

    /// Keeps a graph.
    pub fn keep(&mut self, key: GraphKey, graph: Graph) {
        self.known.insert(key, Some(graph));
    }
}

#[cfg(all(test, not(feature = "cuda")))]
mod tests {
    use crate::checkpoint::Checkpoint;
    use crate::config::Config;
    use crate::device::Backend;
    use crate::language_model::{Input, Positions};
    use crate::memory::DeviceFootprint;
    use crate::model::{Gpt2, LoadOptions, WeightType};

    /// A prompt that fills the context, plus a token after it, take the memory that `info` predicts, not counting the
    /// tables of passes.
    #[test]
    fn cache_and_buffers_take_what_was_predicted() {
        let sizes =
            Config { vocab_size: 90, n_positions: 150, n_embd: 40, n_inner: 70, ..Config::named("gpt2").unwrap() };
        let config = Config { n_layer: 2, n_head: 2, ..sizes };
        for weights in [WeightType::F32, WeightType::BF16] {
            let checkpoint = Checkpoint::random(&config, weights, 0).unwrap();
            let options = LoadOptions { weights, backend: Backend::Emulator, ..LoadOptions::default() };
            let model = Gpt2::load(config.clone(), &checkpoint, options).unwrap();
            let mut cache = model.new_cache();
            let [logits, best, hidden] = [Positions::None, Positions::Last, Positions::None];
            for ids in [&[1; 149][..], &[2]] {
                model.run(&[Input { row: 0, ids, logits, best, hidden, top: 0 }], &mut cache).unwrap();
            }

            let predicted = DeviceFootprint::of_config(&config, weights);
            let cache = cache.own::<super::Cache>().unwrap();
            let slabs: usize = cache.rows.memory.slabs.iter().map(super::Memory::len).sum();
            assert_eq!(slabs as u64, predicted.kv_cache_bytes);
            let s = &cache.scratch;
            let of_layers = [&s.x, &s.y, &s.q, &s.inner, &s.partial, &s.totals, &s.done];
            let of_ends = [&s.picked, &s.logits, &s.best, &s.top, &s.hidden];
            let buffers: usize = of_layers.into_iter().chain(of_ends).flatten().map(super::Memory::len).sum();
            assert_eq!(Some(buffers as u64), predicted.scratch_bytes);
        }
    }
}
