//! How attention sees the rows of the cache on a device.
//!
//! Adjacent rows of the cache with the same number of new positions make a run, and a run is one batched product: all
//! rows of a decoding batch, whatever their lengths, or one prompt. What all layers share (where new positions go,
//! which positions a query sees) is made once per pass.

use candle_core::{DType, Tensor};

use super::Place;
use crate::error::Result;
use crate::model::Segment;

/// The most scores that one run computes at a time.
const MOST_SCORES: usize = 1 << 26;

/// How attention splits a position's queries, keys and values.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// `H`.
    pub heads: usize,
    /// `D`.
    pub head_dim: usize,
}

/// How a pass sees the rows of the cache.
#[derive(Debug, Default)]
pub struct View {
    pub runs: Vec<Run>,
    /// The segments' indices in the order of their rows, if they come in another order.
    pub order: Option<Order>,
}

/// From the order of a batch to the order of its rows and back: indices of positions.
#[derive(Debug)]
pub struct Order {
    /// The segments' indices, by row.
    pub segments: Vec<usize>,
    pub to_rows: Tensor,
    pub to_batch: Tensor,
}

/// `R` adjacent rows with `T` new positions each.
#[derive(Debug)]
pub struct Run {
    /// The first row, and the number of rows.
    pub rows: (usize, usize),
    /// The first new position among those of the pass, by row, and the number per row.
    pub new: (usize, usize),
    /// `S`, the most positions that a row of the run holds after the pass.
    pub total: usize,
    /// The number that each row holds then.
    totals: Vec<usize>,
    /// Where new positions go in the cache, (R, H, T, D).
    pub index: Tensor,
    /// Added to the scores, (R, 1, T, S): 0, or a number so low that the weight becomes 0. `None` if all positions are
    /// visible.
    mask: Option<Tensor>,
}

impl View {
    /// For these segments, each in a different row.
    pub fn new(segments: &[Segment], shape: AttentionShape, place: &Place) -> Result<Self> {
        let mut by_row: Vec<usize> = (0..segments.len()).collect();
        by_row.sort_by_key(|i| segments[*i].row);
        let sorted: Vec<Segment> = by_row.iter().map(|i| segments[*i]).collect();
        let mut runs = vec![];
        let mut rest = &sorted[..];
        let mut first = 0;
        while !rest.is_empty() {
            let (run, others) = rest.split_at(run_len(rest, shape.heads));
            runs.push(Run::new(run, first, shape, place)?);
            first += run.iter().map(|s| s.len).sum::<usize>();
            rest = others;
        }
        let order = if by_row.is_sorted() { None } else { Some(Order::new(by_row, &sorted, place)?) };
        Ok(Self { runs, order })
    }
}

/// How many of the segments, in the order of their rows, form the first run.
fn run_len(segments: &[Segment], heads: usize) -> usize {
    let mut total = segments[0].total();
    let fits = |(i, s): &(usize, &Segment)| {
        total = total.max(s.total());
        let scores = (i + 1) * heads * s.len * total;
        s.row == segments[0].row + i && s.len == segments[0].len && (*i == 0 || scores <= MOST_SCORES)
    };
    segments.iter().enumerate().take_while(fits).count()
}

impl Order {
    fn new(segments: Vec<usize>, sorted: &[Segment], place: &Place) -> Result<Self> {
        let to_rows: Vec<u32> = sorted.iter().flat_map(|s| s.first..s.first + s.len).map(|i| i as u32).collect();
        let mut to_batch = vec![0; to_rows.len()];
        for (i, from) in (0..).zip(&to_rows) {
            to_batch[*from as usize] = i;
        }
        let tensor = |indices: Vec<u32>| Tensor::new(indices, &place.device);
        Ok(Self { segments, to_rows: tensor(to_rows)?, to_batch: tensor(to_batch)? })
    }
}

impl Run {
    fn new(segments: &[Segment], first: usize, shape: AttentionShape, place: &Place) -> Result<Self> {
        let (rows, len) = (segments.len(), segments[0].len);
        let totals: Vec<usize> = segments.iter().map(Segment::total).collect();
        let total = totals.iter().copied().max().unwrap_or(0);
        let new: Vec<u32> = segments.iter().flat_map(|s| s.past..s.total()).map(|i| i as u32).collect();
        let new = Tensor::new(new, &place.device)?.reshape((rows, 1, len, 1))?;
        let index = new.broadcast_as((rows, shape.heads, len, shape.head_dim))?.contiguous()?;
        let all_seen = len == 1 && totals.iter().all(|t| *t == total);
        let mask = if all_seen { None } else { Some(mask(&new, total, place)?) };
        Ok(Self { rows: (segments[0].row, rows), new: (first, len), total, totals, index, mask })
    }
}

/// The addends for the scores of new positions (R, 1, T, 1) over positions 0 to `total`, (R, 1, T, S).
fn mask(new: &Tensor, total: usize, place: &Place) -> Result<Tensor> {
    let positions = Tensor::arange(0, total as u32, &place.device)?.to_dtype(DType::F32)?;
    let later = positions.broadcast_gt(&new.to_dtype(DType::F32)?)?.to_dtype(DType::F32)?;
    Ok(later.affine(f64::from(f32::MIN), 0.0)?.to_dtype(place.dtype)?)
}

impl Run {
    /// The scores (R, H, T, S) with those that a query must not see masked.
    pub fn masked(&self, scores: Tensor) -> Result<Tensor> {
        Ok(match &self.mask {
            Some(mask) => scores.broadcast_add(mask)?,
            None => scores,
        })
    }

    /// Appends each row's probabilities (H, T, its S) to `into`, from those of the run (R, H, T, S).
    pub fn split_weights(&self, probabilities: &Tensor, into: &mut Vec<Tensor>) -> Result<()> {
        for (i, total) in self.totals.iter().enumerate() {
            into.push(probabilities.get(i)?.narrow(2, 0, *total)?);
        }
        Ok(())
    }
}
