//! Rules that could not be followed: those that never end, whose texts are never complete, and those that ask for what a
//! constraint does not decide.

use llguidance::earley::{CGrammar, CSymIdx};
use rustc_hash::{FxHashMap, FxHashSet};

/// The symbols of a cycle that no text gets out of, if `grammar` has one: whatever is taken for the first, it needs the
/// second, and so on, and the last needs the first.
pub(super) fn endless(grammar: &CGrammar) -> Option<Vec<&str>> {
    let order = children_first(grammar);
    let mut ends: FxHashSet<CSymIdx> = FxHashSet::default();
    loop {
        let before = ends.len();
        for symbol in &order {
            if !ends.contains(symbol) && can_end(grammar, *symbol, &ends) {
                ends.insert(*symbol);
            }
        }
        if ends.len() == before {
            break;
        }
    }
    let mut symbol = *order.iter().find(|symbol| !ends.contains(*symbol))?;
    let mut path = vec![];
    let mut places = FxHashMap::default();
    loop {
        if let Some(&place) = places.get(&symbol) {
            return Some(path.split_off(place));
        }
        places.insert(symbol, path.len());
        path.push(grammar.sym_name(symbol));
        let parts = grammar.rules_of(symbol).iter().flat_map(|rule| grammar.rule_rhs(*rule).0);
        symbol = *parts.into_iter().find(|part| !ends.contains(*part))?;
    }
}

/// Whether a rule has a temperature of its own.
pub(super) fn sets_temperature(grammar: &CGrammar) -> bool {
    children_first(grammar).into_iter().any(|symbol| grammar.sym_data(symbol).props.temperature != 0.0)
}

/// Whether a symbol derives a text if those of `ends` do.
fn can_end(grammar: &CGrammar, symbol: CSymIdx, ends: &FxHashSet<CSymIdx>) -> bool {
    let data = grammar.sym_data(symbol);
    let mut rules = data.rules.iter().map(|rule| grammar.rule_rhs(*rule).0);
    data.is_terminal
        || data.is_nullable
        || !data.cond_nullable.is_empty()
        || rules.any(|parts| parts.iter().all(|part| ends.contains(part)))
}

/// All symbols that the start needs, most of them after their parts.
fn children_first(grammar: &CGrammar) -> Vec<CSymIdx> {
    let (mut seen, mut order) = (FxHashSet::default(), vec![]);
    let mut open = vec![(grammar.start(), false)];
    while let Some((symbol, is_done)) = open.pop() {
        if is_done {
            order.push(symbol);
        } else if seen.insert(symbol) {
            open.push((symbol, true));
            let parts = grammar.rules_of(symbol).iter().flat_map(|rule| grammar.rule_rhs(*rule).0);
            open.extend(parts.map(|part| (*part, false)));
        }
    }
    order
}
