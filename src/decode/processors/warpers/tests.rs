use super::*;
use proptest::prelude::*;

const OUT: f32 = f32::NEG_INFINITY;

/// Logits whose probabilities are `probs`.
fn logits(probs: &[f32]) -> Vec<f32> {
    probs.iter().map(|p| p.ln()).collect()
}

fn survivors(logits: &[f32]) -> Vec<usize> {
    (0..logits.len()).filter(|&id| logits[id] > OUT).collect()
}

#[test]
fn ties_at_k_stay() {
    let mut row = [1.0, 3.0, 2.0, 2.0, 0.0];
    top_k(&mut row, 2);
    assert_eq!(row, [OUT, 3.0, 2.0, 2.0, OUT]);
}

#[test]
fn the_token_that_crosses_p_stays() {
    let probs = [0.1, 0.5, 0.4];
    for (p, expected) in [(0.4, vec![1]), (0.51, vec![1, 2]), (0.89, vec![1, 2]), (0.95, vec![0, 1, 2])] {
        let mut row = logits(&probs);
        top_p(&mut row, p, 1);
        assert_eq!(survivors(&row), expected, "{p}");
    }
    let mut row = logits(&probs);
    top_p(&mut row, 0.1, 2);
    assert_eq!(survivors(&row), [1, 2], "two are always kept");
    let mut row = logits(&[0.25; 4]);
    top_p(&mut row, 0.3, 1);
    assert_eq!(survivors(&row), [2, 3], "the later ones among ties");
}

#[test]
fn the_best_tokens_share_the_entropy() {
    // Of 1.21 nats the tokens have 0.35, 0.35, 0.26 and 0.26.
    let probs = [0.125, 0.5, 0.25, 0.125];
    for (h, expected) in
        [(0.1, vec![1]), (0.3, vec![1]), (0.6, vec![1, 2]), (0.8, vec![0, 1, 2]), (1.0, vec![0, 1, 2, 3])]
    {
        let mut row = logits(&probs);
        top_h(&mut row, h);
        assert_eq!(survivors(&row), expected, "{h}");
    }
    let mut row = vec![1.0; 300];
    top_h(&mut row, 1.0);
    assert!(survivors(&row).len() <= 100, "nothing beyond the best 100");
    let mut row = [2.0, OUT, OUT];
    top_h(&mut row, 0.5);
    assert_eq!(row, [2.0, OUT, OUT], "a token that is ruled out has no share");
    let mut row = [200.0, 1.0, 0.0];
    top_h(&mut row, 0.5);
    assert_eq!(row, [200.0, OUT, OUT], "all but certain");
}

#[test]
fn min_p_is_relative_to_the_best() {
    let mut row = logits(&[0.5, 0.3, 0.15, 0.05]);
    min_p(&mut row, 0.4, 1);
    assert_eq!(survivors(&row), [0, 1]);
    min_p(&mut row, 1.0, 2);
    assert_eq!(survivors(&row), [0, 1]);
}

#[test]
fn typical_tokens_may_leave_out_the_likeliest() {
    // The entropy is 1.50 nats, the surprisals are 0.92 (off by 0.59) and 1.90 (off by 0.39).
    let mut row = logits(&[0.4, 0.15, 0.15, 0.15, 0.15]);
    typical_p(&mut row, 0.3, 1);
    assert_eq!(survivors(&row), [1, 2, 3, 4], "ties with the last one stay");
}

#[test]
fn cutoffs_always_keep_the_best() {
    let mut row = logits(&[0.4, 0.35, 0.25]);
    epsilon_cutoff(&mut row, 0.3, 1);
    assert_eq!(survivors(&row), [0, 1]);
    epsilon_cutoff(&mut row, 0.99, 1);
    assert_eq!(survivors(&row), [0]);
    let mut row = logits(&[0.25; 4]);
    eta_cutoff(&mut row, 0.9, 1);
    assert_eq!(survivors(&row), [0, 1, 2, 3], "√0.9 · e^-ln 4 = 0.237 is below all of them");
}

type Truncation = Box<dyn Fn(&mut [f32])>;

/// Every truncation, by name.
fn truncations(a: f64, k: usize, keep: usize) -> Vec<(&'static str, Truncation)> {
    let x = a as f32;
    vec![
        ("top_k", Box::new(move |row: &mut [f32]| top_k(row, k.max(keep)))),
        ("top_p", Box::new(move |row: &mut [f32]| top_p(row, a, keep))),
        ("min_p", Box::new(move |row: &mut [f32]| min_p(row, x, keep))),
        ("typical_p", Box::new(move |row: &mut [f32]| typical_p(row, x, keep))),
        ("epsilon_cutoff", Box::new(move |row: &mut [f32]| epsilon_cutoff(row, x, keep))),
        ("eta_cutoff", Box::new(move |row: &mut [f32]| eta_cutoff(row, x, keep))),
    ]
}

/// A case of `decoding.json` (`tests/fixtures/make_decoding.py`): what transformers' processor leaves in a row.
#[derive(serde::Deserialize)]
struct Case {
    name: String,
    value: f64,
    keep: usize,
    /// Null is `-inf`.
    logits: Vec<Option<f32>>,
    survivors: Vec<usize>,
}

#[test]
fn the_survivors_match_transformers() {
    #[derive(serde::Deserialize)]
    struct Fixture {
        processors: Vec<Case>,
    }
    let fixture: Fixture =
        serde_json::from_str(include_str!("../../../../tests/fixtures/decoding.json")).expect("the fixture's format");
    assert!(fixture.processors.len() > 100);
    for Case { name, value, keep, logits, survivors: expected } in fixture.processors {
        let row: Vec<f32> = logits.into_iter().map(|x| x.unwrap_or(OUT)).collect();
        let mut cut = row.clone();
        let all = truncations(value, value as usize, keep);
        let (_, truncate) = all.iter().find(|(n, _)| *n == name).expect("a truncation of that name");
        truncate(&mut cut);
        // PyTorch's order of ties depends on the machine.
        let scores = |ids: &[usize]| {
            let mut scores: Vec<f32> = ids.iter().map(|&id| row[id]).collect();
            scores.sort_by(f32::total_cmp);
            scores
        };
        assert_eq!(scores(&survivors(&cut)), scores(&expected), "{name} {value}, keep {keep}");
    }
}

/// [`top_p`] by its definition, with a full ascending sort.
fn top_p_by_sorting(row: &[f32], p: f64, keep: usize) -> Vec<usize> {
    let mut probs = vec![];
    logits::softmax(row, &mut probs);
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[a].total_cmp(&row[b]));
    let mut cumulative = 0.0;
    let mut kept: Vec<usize> = order
        .iter()
        .enumerate()
        .filter(|&(rank, &id)| {
            cumulative += f64::from(probs[id]);
            cumulative as f32 > (1.0 - p) as f32 || rank + keep >= row.len()
        })
        .map(|(_, &id)| id)
        .collect();
    kept.sort_unstable();
    kept
}

proptest! {
    #[test]
    fn truncations_only_remove_and_never_the_best(
        row in proptest::collection::vec(prop_oneof![6 => -12f32..12.0, 1 => Just(3.0), 1 => Just(OUT)], 12..300),
        a in 0.001f64..0.999,
        k in 1usize..20,
        keep in 1usize..4,
    ) {
        let finite = survivors(&row).len();
        prop_assume!(finite >= keep);
        for (name, truncate) in truncations(a, k, keep) {
            let mut cut = row.clone();
            truncate(&mut cut);
            prop_assert!(cut.iter().zip(&row).all(|(c, r)| c == r || *c == OUT), "{} changed a score", name);
            prop_assert!(survivors(&cut).len() >= keep, "{} keeps {}", name, keep);
            if name != "typical_p" {
                let worst_kept = survivors(&cut).iter().map(|&i| row[i]).fold(f32::INFINITY, f32::min);
                let best_cut = (0..row.len()).filter(|&i| cut[i] != row[i]).map(|i| row[i]).fold(OUT, f32::max);
                prop_assert!(best_cut <= worst_kept, "{} removes from the bottom", name);
            }
            // Removing tokens changes the probabilities that other truncations use, but not what these two use.
            if matches!(name, "top_k" | "min_p") {
                let mut twice = cut.clone();
                truncate(&mut twice);
                prop_assert_eq!(&cut, &twice, "{} is idempotent", name);
            }
            let mut probs = vec![];
            logits::softmax(&cut, &mut probs);
            prop_assert!((probs.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn top_p_is_what_a_whole_sort_gives(
        row in proptest::collection::vec(prop_oneof![6 => -12f32..12.0, 2 => Just(3.0)], 3..600),
        p in 0.001f64..0.999,
        keep in 1usize..3,
    ) {
        let mut cut = row.clone();
        top_p(&mut cut, p, keep);
        prop_assert_eq!(survivors(&cut), top_p_by_sorting(&row, p, keep));
    }

    #[test]
    fn a_wider_setting_keeps_a_larger_set(
        row in proptest::collection::vec(-12f32..12.0, 2..300),
        a in 0.01f64..0.99,
        b in 0.01f64..0.99,
    ) {
        let (low, high) = (a.min(b), a.max(b));
        for (name, wider) in [("top_p", high), ("typical_p", high), ("min_p", low), ("epsilon_cutoff", low), ("eta_cutoff", low)] {
            let narrower = low + high - wider;
            let of = |value| {
                let mut cut = row.clone();
                let all = truncations(value, 1, 1);
                let (_, truncate) = all.iter().find(|(n, _)| *n == name).expect("it is in the list");
                truncate(&mut cut);
                survivors(&cut)
            };
            let (wide, narrow) = (of(wider), of(narrower));
            prop_assert!(narrow.iter().all(|id| wide.contains(id)), "{}", name);
        }
    }
}
