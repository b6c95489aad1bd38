//! Inputs that begin alike, as a tree: what several have in common is a node of its own, so that it runs once.

use std::collections::HashMap;
use std::ops::Range;

/// Common parts that are shorter than this stay apart: a pass of its own would cost more than it saves.
pub(super) const LEAST: usize = 16;

/// Some of the tokens of an input, after those of the nodes above.
#[derive(Debug)]
pub(super) struct Node {
    /// An input that holds them.
    pub input: usize,
    /// Where it does.
    pub range: Range<usize>,
    pub parent: Option<usize>,
    pub children: Vec<usize>,
}

/// The inputs, by the nodes that they consist of.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub nodes: Vec<Node>,
    /// In the order in which inputs begin with them.
    pub roots: Vec<usize>,
    /// Where each input ends.
    pub ends: Vec<usize>,
}

impl Tree {
    /// The tree of `inputs`, none of which is empty. Only those share that `may_share`.
    pub fn of(inputs: &[&[u32]], may_share: impl Fn(usize) -> bool) -> Self {
        let mut tree = Self::default();
        // Nodes by the node above and the tokens that they begin with.
        let mut begin = HashMap::new();
        for (input, ids) in inputs.iter().enumerate() {
            let (mut parent, mut at) = (None, 0);
            let end = loop {
                let key = ids.get(at..at + LEAST).filter(|_| may_share(input)).map(|first| (parent, first));
                let split = || tree.rest_of_split(inputs, parent, &ids[at..]).filter(|_| may_share(input));
                let Some(like) = key.and_then(|key| begin.get(&key).copied()).or_else(split) else {
                    let node = tree.add(Node { input, range: at..ids.len(), parent, children: vec![] });
                    begin.extend(key.map(|key| (key, node)));
                    break node;
                };
                let Node { input: other, range, .. } = &tree.nodes[like];
                let (own, start) = (&inputs[*other][range.clone()], range.start);
                let common = own.iter().zip(&ids[at..]).take_while(|(one, other)| one == other).count();
                at += common;
                let mut node = like;
                if common < own.len() {
                    node = tree.split(like, start + common);
                    begin.extend(key.map(|key| (key, node)));
                    begin.extend(own[common..].first_chunk::<LEAST>().map(|first| ((Some(node), &first[..]), like)));
                }
                if at == ids.len() {
                    break node;
                }
                parent = Some(node);
            };
            tree.ends.push(end);
        }
        tree
    }

    /// The nodes of an input, from its end to its start.
    pub fn path(&self, input: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.ends.get(input).copied(), |node| self.nodes[*node].parent)
    }

    fn add(&mut self, node: Node) -> usize {
        let id = self.nodes.len();
        self.siblings(node.parent).push(id);
        self.nodes.push(node);
        id
    }

    /// What was left of a node when the one above was split off, if `ids` begin with all of it and others go on from it: it
    /// may be too short to be found by its beginning.
    fn rest_of_split(&self, inputs: &[&[u32]], parent: Option<usize>, ids: &[u32]) -> Option<usize> {
        let first = *self.nodes[parent?].children.first()?;
        let Node { input, range, children, .. } = &self.nodes[first];
        (!children.is_empty() && ids.starts_with(&inputs[*input][range.clone()])).then_some(first)
    }

    /// Makes what a node holds before `at` a node of its own above it, and returns that.
    fn split(&mut self, node: usize, at: usize) -> usize {
        let upper = self.nodes.len();
        let Node { input, range, parent, .. } = &mut self.nodes[node];
        let above = Node { input: *input, range: range.start..at, parent: *parent, children: vec![node] };
        (range.start, *parent) = (at, Some(upper));
        let siblings = self.siblings(above.parent);
        siblings.iter_mut().filter(|sibling| **sibling == node).for_each(|sibling| *sibling = upper);
        self.nodes.push(above);
        upper
    }

    fn siblings(&mut self, parent: Option<usize>) -> &mut Vec<usize> {
        match parent {
            Some(parent) => &mut self.nodes[parent].children,
            None => &mut self.roots,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(tree: &Tree, inputs: &[&[u32]], node: usize) -> Vec<u32> {
        let Node { input, range, .. } = &tree.nodes[node];
        inputs[*input][range.clone()].to_vec()
    }

    #[test]
    fn what_begins_alike_is_there_once() {
        let context: Vec<u32> = (0..40).collect();
        let with = |end: &[u32]| [&context, end].concat();
        let inputs = [with(&[7]), vec![1, 2, 3], with(&[8, 9]), context[..30].to_vec(), with(&[8]), with(&[7])];
        let inputs: Vec<&[u32]> = inputs.iter().map(Vec::as_slice).collect();
        let tree = Tree::of(&inputs, |_| true);
        let tokens: usize = tree.nodes.iter().map(|node| node.range.len()).sum();
        // The context in two parts, since an input ends within it; what follows is too short to share.
        assert_eq!((tokens, tree.roots.len()), (30 + 10 + 1 + 3 + 2 + 1 + 1, 2));
        let apart = Tree::of(&inputs, |_| false);
        assert_eq!((apart.roots.len(), apart.nodes.len()), (6, 6));
    }

    proptest! {
        #[test]
        fn the_path_of_an_input_holds_its_tokens(
            inputs in proptest::collection::vec(proptest::collection::vec(0u32..2, 1..60), 1..30),
            same in 0usize..50,
        ) {
            // Long common beginnings are rare in random inputs.
            let inputs: Vec<Vec<u32>> = inputs.into_iter().map(|ids| [vec![1; same * (ids.len() % 3)], ids].concat()).collect();
            let inputs: Vec<&[u32]> = inputs.iter().map(Vec::as_slice).collect();
            let tree = Tree::of(&inputs, |_| true);
            for (i, input) in inputs.iter().enumerate() {
                let mut path: Vec<usize> = tree.path(i).collect();
                path.reverse();
                let found: Vec<u32> = path.iter().flat_map(|node| ids(&tree, &inputs, *node)).collect();
                prop_assert_eq!(&found, input);
                prop_assert!(tree.roots.contains(&path[0]));
                prop_assert!(path.windows(2).all(|pair| tree.nodes[pair[0]].children.contains(&pair[1])));
            }
            prop_assert!(tree.nodes.iter().all(|node| !node.range.is_empty()));
            let mut shared = tree.roots.iter().map(|root| &tree.nodes[*root]).filter(|node| !node.children.is_empty());
            prop_assert!(shared.all(|node| node.range.len() >= LEAST));
        }
    }
}
