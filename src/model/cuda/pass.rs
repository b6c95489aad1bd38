//! A pass of the network: ids to hidden states, logits and best tokens.
//!
//! A pass of many tokens runs in parts, which does not change any number.

use candle_core::Tensor;

use super::arguments::{AttentionArgs, CachedArgs, EmbedArgs, Into, MatmulArgs, Queries, TopArgs};
use super::cache::{Cache, GraphKey};
use super::kernel::{Kernel, MIXED_NUMBERS, PAGE_POSITIONS, TILE_ROWS, prompt_queries};
use super::operations::FEW_ROWS;
use super::record::Record;
use super::scratch::{Plan, Wanted, at};
use super::shape::padded;
use super::{Layer, Network};
use crate::base::FloatType;
use crate::error::{Error, Result};
use crate::language_model::{Input, Output, Positions};
use crate::logits::{LogNormalizer, Top};
use crate::model::network::segments;
use crate::model::{Segment, Trace};

/// In graphs, the number of pages is rounded up to multiples of this: pages that are not there cost
/// nothing.
const GRAPH_PAGES: usize = 4;

const FLOAT: usize = size_of::<f32>();

/// New tokens of one row that are processed together, and the outputs wanted for them.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    row: usize,
    ids: &'a [u32],
    /// The number of positions before them.
    past: usize,
    /// The first token whose logits, most probable tokens, best token and hidden state are wanted.
    wanted_from: [usize; 4],
    /// The index of its segment.
    segment: usize,
}

/// The token ids that `rank_of` in `kernels` ranked highest; `None` where a logit was not finite.
pub fn ids(bytes: &[u8]) -> impl Iterator<Item = Option<u32>> {
    let ranks = bytes.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
    ranks.map(|rank| (rank != u64::MAX).then_some(!(rank as u32)))
}

/// The most probable tokens as written by `TopTokens`; `None` if a logit was not finite.
pub fn read_top(bytes: &[u8]) -> Option<Top> {
    let (sum, ranks) = bytes.split_first_chunk()?;
    let ranks = ranks.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
    let best: Vec<_> = ranks
        .map(|rank| (rank != u64::MAX).then_some((!(rank as u32), logit((rank >> 32) as u32))))
        .collect::<Option<_>>()?;
    let largest = best.first().map_or(0.0, |(_, logit)| *logit);
    Some(Top { best, normalizer: LogNormalizer { largest, log_sum: f64::from_ne_bytes(*sum).ln() as f32 } })
}

/// The logit of an ordered number: the inverse of `rank_of` in `kernels`.
fn logit(ordered: u32) -> f32 {
    f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes))
}

impl Network {
    /// As [`crate::model::Gpt2::forward`], with inputs that it has checked.
    pub fn residual_stream(
        &self,
        inputs: &[(usize, &[u32])],
        cache: &mut Cache,
        trace: Option<&mut Trace>,
    ) -> Result<Tensor> {
        let segments: Vec<Segment> = segments(inputs.iter().copied(), |row| cache.rows.len(row)).collect();
        cache.rows.reserve(&segments)?;
        let most = self.shape.most_tokens(trace.is_some());
        let parts = segments.iter().zip(inputs).enumerate();
        // Only the residual stream is wanted.
        let parts = parts.flat_map(|(i, (segment, (_, ids)))| split(segment, i, ids, [segment.len; 4], most));
        let parts: Vec<Part<'_>> = parts.collect();
        let tokens: usize = segments.iter().map(|s| s.len).sum();
        let width = self.shape.width;
        let x = self.gpu.zeros(tokens * width * FLOAT)?;
        let record = match &trace {
            Some(trace) => Some(self.record(trace, &segments)?),
            None => None,
        };
        let mut first = 0;
        for parts in passes(&parts, most) {
            let plan = self.prepare(parts, 0, cache, record.as_ref())?;
            self.launch(&plan, cache, parts, first, record.as_ref(), None)?;
            let rows = (at(&cache.scratch.x), self.shape.padded);
            self.copy_rows(plan.tokens, rows, (x.address() + (first * width * FLOAT) as u64, width))?;
            first += plan.tokens;
        }
        if let (Some(trace), Some(record)) = (trace, record) {
            self.keep(trace, record, tokens)?;
        }
        // A failure must be known before the positions count.
        self.gpu.synchronize()?;
        cache.rows.commit(&segments);
        self.gpu.tensor(x, (tokens, width))
    }

    /// As [`crate::language_model::LanguageModel::forward`], with inputs that are already checked.
    pub fn outputs(&self, inputs: &[Input<'_>], cache: &mut Cache) -> Result<Output> {
        let rows = inputs.iter().map(|input| (input.row, input.ids));
        let segments: Vec<Segment> = segments(rows, |row| cache.rows.len(row)).collect();
        cache.rows.reserve(&segments)?;
        let from = |positions: Positions, len: usize| match positions {
            Positions::None => len,
            Positions::Last => len - 1,
            Positions::All => 0,
        };
        let most = self.shape.most_tokens(false);
        let parts = segments.iter().zip(inputs).enumerate().flat_map(|(i, (segment, input))| {
            let top = if input.top > 0 { Positions::Last } else { Positions::None };
            let wanted = [input.logits, top, input.best, input.hidden].map(|positions| from(positions, segment.len));
            split(segment, i, input.ids, wanted, most)
        });
        let parts: Vec<Part<'_>> = parts.collect();
        let count = inputs.iter().map(|input| input.top).max().unwrap_or(0).min(self.shape.vocabulary);
        let mut output = Output::default();
        for parts in passes(&parts, most) {
            let plan = self.prepare(parts, count, cache, None)?;
            self.launch_or_replay(&plan, cache, parts)?;
            self.gpu.synchronize()?;
            self.collect(&plan, cache, &mut output);
        }
        let counts = inputs.iter().map(|input| input.top).filter(|count| *count > 0);
        for (top, count) in output.top.iter_mut().zip(counts) {
            if let Some(top) = top {
                top.best.truncate(count);
            }
        }
        cache.rows.commit(&segments);
        Ok(output)
    }

    /// Writes the tables of a pass and reserves its buffers; `count` is how many of the most probable tokens are
    /// wanted.
    fn prepare(&self, parts: &[Part<'_>], count: usize, cache: &mut Cache, record: Option<&Record>) -> Result<Plan> {
        let shape = &self.shape;
        let most_pages = shape.most_pages();
        let (attention, tile) = self.attention(parts, record.is_some());
        let splits = attention == Kernel::AttentionSplit;
        let tokens = parts.iter().map(|part| part.ids.len()).sum();
        let tiles = parts.iter().map(|part| part.ids.len().div_ceil(tile)).sum();
        let [logits, top, best, hidden] =
            [0, 1, 2, 3].map(|i| parts.iter().map(|part| part.ids.len() - part.wanted_from[i]).sum());
        let wanted = Wanted { logits, top, best, hidden, count: if top > 0 { count } else { 0 } };
        let plan = Plan::new(parts.len(), tokens, tiles, wanted, most_pages);
        let results = wanted.result_bytes(shape).into_iter().sum();
        // The previous pass may still be using the buffers.
        self.gpu.synchronize()?;
        cache.scratch.reserve(&plan, splits, results)?;
        let bytes = cache.scratch.plan_host.as_mut().expect("reserved").bytes_mut();
        let mut queries = Vec::with_capacity(tiles);
        let mut first = 0;
        for (i, part) in parts.iter().enumerate() {
            let pages = cache.rows.pages(part.row);
            let address = |page: usize| cache.rows.memory.address(pages[page]);
            let total = part.past + part.ids.len();
            for page in 0..total.div_ceil(PAGE_POSITIONS) {
                put(bytes, plan.tables, i * most_pages + page, address(page).to_ne_bytes());
            }
            for (j, id) in part.ids.iter().enumerate() {
                let position = part.past + j;
                put(bytes, plan.token_pages, first + j, address(position / PAGE_POSITIONS).to_ne_bytes());
                put(bytes, plan.token_offsets, first + j, ((position % PAGE_POSITIONS) as u32).to_ne_bytes());
                put(bytes, plan.ids, first + j, id.to_ne_bytes());
                put(bytes, plan.positions, first + j, (position as u32).to_ne_bytes());
            }
            for from in (0..part.ids.len()).step_by(tile) {
                let (weights_at, stride, head) = match record {
                    Some(record) => record.place(part.segment, part.past + from),
                    None => (0, 0, 0),
                };
                queries.push(Queries {
                    first: (first + from) as i32,
                    count: tile.min(part.ids.len() - from) as i32,
                    position: (part.past + from) as i32,
                    table: (i * most_pages) as i32,
                    weights_at: number(weights_at)?,
                    weights_stride: number(stride)?,
                    weights_head: number(head)?,
                    past: part.past as i32,
                });
            }
            first += part.ids.len();
        }
        for (i, tile) in queries.iter().enumerate() {
            let Queries { first, count, position, table, weights_at, weights_stride, weights_head, past } = *tile;
            let fields = [first, count, position, table, weights_at, weights_stride, weights_head, past];
            for (j, field) in fields.into_iter().enumerate() {
                put(bytes, plan.queries, i * fields.len() + j, field.to_ne_bytes());
            }
        }
        let mut row = 0;
        for kind in 0..4 {
            let mut first = 0;
            for part in parts {
                for token in part.wanted_from[kind]..part.ids.len() {
                    put(bytes, plan.rows, row, ((first + token) as u32).to_ne_bytes());
                    row += 1;
                }
                first += part.ids.len();
            }
        }
        Ok(plan)
    }

    /// Which kernel computes attention, and how many queries per tile. Pages run in parallel if
    /// processing them in order would leave processors idle, and if probabilities are wanted.
    fn attention(&self, parts: &[Part<'_>], traced: bool) -> (Kernel, usize) {
        if traced {
            return (Kernel::AttentionSplit, TILE_ROWS);
        }
        if parts.iter().any(|part| part.ids.len() > TILE_ROWS) {
            return (Kernel::AttentionPrompt, prompt_queries(self.shape.numbers));
        }
        let in_order = parts.len() * self.shape.heads >= 2 * self.gpu.processors();
        (if in_order { Kernel::Attention8 } else { Kernel::AttentionSplit }, TILE_ROWS)
    }

    /// Runs a pass, as a graph if there is one.
    fn launch_or_replay(&self, plan: &Plan, cache: &mut Cache, parts: &[Part<'_>]) -> Result<()> {
        let pages = most_positions(parts).div_ceil(PAGE_POSITIONS).next_multiple_of(GRAPH_PAGES);
        let pages = pages.min(self.shape.most_pages());
        let decodes = parts.len() <= FEW_ROWS && parts.iter().all(|part| part.ids.len() == 1);
        if !decodes {
            return self.launch(plan, cache, parts, 0, None, None);
        }
        let key = GraphKey { rows: parts.len(), wanted: plan.wanted, pages };
        let generation = cache.scratch.generation;
        if let Some(graph) = cache.graphs.get(key, generation) {
            return self.gpu.replay(graph);
        }
        if cache.graphs.seen(key, generation)
            && let Some(graph) = self.gpu.capture(|| self.launch(plan, cache, parts, 0, None, Some(pages)))?
        {
            self.gpu.replay(&graph)?;
            cache.graphs.keep(key, graph);
            return Ok(());
        }
        self.launch(plan, cache, parts, 0, None, None)
    }

    /// Launches a pass. `first` is the index of its first token among those recorded; `pages` is how many pages of
    /// positions to cover, all that there are if `None`.
    fn launch(
        &self,
        plan: &Plan,
        cache: &mut Cache,
        parts: &[Part<'_>],
        first: usize,
        record: Option<&Record>,
        pages: Option<usize>,
    ) -> Result<()> {
        let shape = &self.shape;
        let scratch = &mut cache.scratch;
        let table = at(&scratch.plan);
        let [tables, token_pages, token_offsets, ids, positions, queries] =
            [plan.tables, plan.token_pages, plan.token_offsets, plan.ids, plan.positions, plan.queries]
                .map(|offset| table + offset as u64);
        self.gpu.send(
            scratch.plan_host.as_ref().expect("reserved"),
            plan.bytes,
            scratch.plan.as_ref().expect("reserved"),
        )?;
        let [x, y, q, inner] = [&scratch.x, &scratch.y, &scratch.q, &scratch.inner].map(at);
        let embed = EmbedArgs {
            wte: self.wte.memory.address(),
            wpe: self.wpe.memory.address(),
            ids,
            positions,
            x,
            best: at(&scratch.best),
            stride: shape.padded as i32,
            width: shape.width as i32,
            best_count: plan.wanted.best as i32,
            unused: 0,
        };
        self.gpu.launch(Kernel::Embed, shape.numbers, [plan.tokens as u32, 1, 1], 0, &embed, false)?;
        if let Some(record) = record {
            self.record_rows(plan.tokens, x, &record.embed, first)?;
        }
        let (rows, stride) = (plan.tokens, shape.padded);
        let (attention, _) = self.attention(parts, record.is_some());
        let pages = pages.unwrap_or(most_positions(parts).div_ceil(PAGE_POSITIONS));
        for (i, layer) in self.layers.iter().enumerate() {
            let Layer { ln_1, c_attn, c_proj, ln_2, c_fc, mlp_c_proj, scale } = layer;
            let cached = CachedArgs::new(shape, i);
            let to_cache = MatmulArgs { pages: token_pages, positions: token_offsets, cached, ..MatmulArgs::default() };
            self.linear(rows, c_attn, Some(ln_1), (x, y), (q, shape.heads * shape.key_dim), Into::Qkv, to_cache)?;
            let arguments = AttentionArgs {
                q,
                pages: tables,
                queries,
                y,
                partial: at(&scratch.partial),
                totals: at(&scratch.totals),
                done: at(&scratch.done),
                weights: record.map_or(0, |record| record.weights(i)),
                scale: *scale,
                q_stride: (shape.heads * shape.key_dim) as i32,
                y_stride: stride as i32,
                most_pages: shape.most_pages() as i32,
                cached,
            };
            let deep = match attention {
                Kernel::AttentionSplit => pages,
                _ => shape.value_dim.div_ceil(MIXED_NUMBERS),
            };
            let grid = [plan.tiles as u32, shape.heads as u32, deep as u32];
            self.gpu.launch(attention, shape.numbers, grid, 0, &arguments, true)?;
            let plain = MatmulArgs { activation: self.activation, ..MatmulArgs::default() };
            self.linear(rows, c_proj, None, (y, y), (x, stride), Into::Residual, plain)?;
            self.linear(rows, c_fc, Some(ln_2), (x, y), (inner, padded(shape.inner)), Into::Activated, plain)?;
            self.linear(rows, mlp_c_proj, None, (inner, inner), (x, stride), Into::Residual, plain)?;
            if let Some(record) = record {
                self.record_rows(rows, x, &record.hidden[i], first)?;
            }
        }
        self.ends(plan, cache)
    }

    /// From the residual stream to the wanted outputs, and back to the host.
    fn ends(&self, plan: &Plan, cache: &mut Cache) -> Result<()> {
        let shape = &self.shape;
        let scratch = &mut cache.scratch;
        let Wanted { logits, top, best, hidden, count } = plan.wanted;
        let [best_bytes, top_bytes, logits_bytes, hidden_bytes] = plan.wanted.result_bytes(shape);
        let rows = at(&scratch.plan) + plan.rows as u64;
        let (x, picked, stride) = (at(&scratch.x), at(&scratch.picked), shape.padded);
        let norm = self.ln_f.arguments(shape.width);
        let results = scratch.results.as_mut().expect("reserved");
        let projected = plan.wanted.projected();
        if projected > 0 {
            // If only the best tokens are wanted, they are found along the way, unless there are many rows.
            let all = if logits + top > 0 || best > FEW_ROWS { at(&scratch.logits) } else { 0 };
            let ranks = (best > 0).then_some((logits + top, at(&scratch.best)));
            if !self.project_normed(projected, norm, (x, stride), rows, all, ranks)? {
                self.normalise(projected, norm, (x, stride), Some(rows), (picked, stride), (0, 0), true)?;
                self.project(projected, picked, all, ranks)?;
            }
            if top > 0 {
                let arguments = TopArgs {
                    logits: all + logits_bytes as u64,
                    top: at(&scratch.top),
                    vocabulary: shape.vocabulary as i32,
                    count: count as i32,
                };
                self.gpu.launch(Kernel::TopTokens, FloatType::F32, [top as u32, 1, 1], 0, &arguments, true)?;
                self.gpu.receive(scratch.top.as_ref().expect("reserved"), top_bytes, results, best_bytes)?;
            }
            if best > 0 {
                self.gpu.receive(scratch.best.as_ref().expect("reserved"), best_bytes, results, 0)?;
            }
            if logits > 0 {
                let from = scratch.logits.as_ref().expect("reserved");
                self.gpu.receive(from, logits_bytes, results, best_bytes + top_bytes)?;
            }
        }
        if hidden > 0 {
            let rows = rows + (projected * size_of::<u32>()) as u64;
            let exact = (at(&scratch.hidden), shape.width);
            self.normalise(hidden, norm, (x, stride), Some(rows), (0, 0), exact, false)?;
            let from = scratch.hidden.as_ref().expect("reserved");
            self.gpu.receive(from, hidden_bytes, results, best_bytes + top_bytes + logits_bytes)?;
        }
        Ok(())
    }

    /// Appends the results to the output.
    fn collect(&self, plan: &Plan, cache: &Cache, output: &mut Output) {
        let [best, top, logits, hidden] = plan.wanted.result_bytes(&self.shape);
        let bytes = cache.scratch.results.as_ref().expect("reserved").bytes();
        let (ranks, bytes) = bytes.split_at(best);
        let (tops, bytes) = bytes.split_at(top);
        let (scores, bytes) = bytes.split_at(logits);
        output.best.extend(ids(ranks));
        output.top.extend(tops.chunks_exact(plan.wanted.top_bytes()).map(read_top));
        output.logits.extend(floats(scores));
        output.hidden.extend(floats(&bytes[..hidden]));
    }
}

/// A segment in pieces of at most `most` tokens.
fn split<'a>(
    segment: &Segment,
    number: usize,
    ids: &'a [u32],
    wanted_from: [usize; 4],
    most: usize,
) -> impl Iterator<Item = Part<'a>> + use<'a> {
    let (row, past) = (segment.row, segment.past);
    ids.chunks(most).enumerate().map(move |(i, ids)| Part {
        row,
        ids,
        past: past + i * most,
        wanted_from: wanted_from.map(|from| from.saturating_sub(i * most).min(ids.len())),
        segment: number,
    })
}

/// Groups of parts that run together, of at most `most` tokens.
fn passes<'p, 'a>(parts: &'p [Part<'a>], most: usize) -> impl Iterator<Item = &'p [Part<'a>]> {
    let mut rest = parts;
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fits = |part: &&Part<'_>| {
            tokens += part.ids.len();
            tokens <= most
        };
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count());
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}

/// The most positions that a row has after the pass.
fn most_positions(parts: &[Part<'_>]) -> usize {
    parts.iter().map(|part| part.past + part.ids.len()).max().unwrap_or(0)
}

/// Writes entry `i` of the table at `offset`.
fn put<const N: usize>(bytes: &mut [u8], offset: usize, i: usize, entry: [u8; N]) {
    bytes[offset + i * N..][..N].copy_from_slice(&entry);
}

fn number(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| Error::Unsupported("too many tokens to record attention weights at once".into()))
}
