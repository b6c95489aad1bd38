//! A pass of the network: ids to hidden states, logits and best tokens.
//!
//! A pass of many tokens runs in parts, which does not change any number.

use candle_core::Tensor;

use super::arguments::{AttentionArgs, CachedArgs, EmbedArgs, Into, MatmulArgs, TopArgs};
use super::cache::{Cache, GraphKey};
use super::kernel::{Kernel, MIXED_NUMBERS, PAGE_POSITIONS};
use super::operations::FEW_ROWS;
use super::plan::{Part, Plan, Wanted, most_positions, passes, split};
use super::record::Record;
use super::scratch::at;
use super::shape::padded;
use super::{Layer, Network};
use crate::base::FloatType;
use crate::base::math;
use crate::error::Result;
use crate::language_model::{Input, Output, Positions};
use crate::logits::{LogNormalizer, Top};
use crate::model::network::segments;
use crate::model::{Recorder, Segment};

/// In graphs, the number of pages is rounded up to multiples of this: pages that are not there cost
/// nothing.
const GRAPH_PAGES: usize = 4;

const FLOAT: usize = size_of::<f32>();

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
    Some(Top { best, normalizer: LogNormalizer { largest, log_sum: math::ln(f64::from_ne_bytes(*sum)) as f32 } })
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
        trace: Option<&mut dyn Recorder>,
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
            Some(trace) => Some(self.record(&**trace, &segments)?),
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
