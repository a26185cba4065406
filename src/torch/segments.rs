use std::ops::Range;

use margay_core::{Graph, Shape};

/// Consecutive parts of a graph, each of which hands a single value to the next.
///
/// For training that keeps only what passes between parts and computes the rest anew when its gradient is due
/// (gradient checkpointing, arXiv 1604.06174): the parts for which the values held at once are fewest, namely
/// those between all parts and those within the largest.
pub(crate) fn segments(graph: &Graph) -> Vec<Range<usize>> {
    let shapes = graph.shapes().unwrap_or_else(|_| unreachable!("a model's graph was checked"));
    let sizes: Vec<usize> = shapes.into_iter().map(Shape::len).collect();
    let trunk = graph.trunk();
    let cuts: Vec<usize> = (0..trunk.len()).filter(|node| trunk[*node]).collect();
    let total: usize = sizes.iter().sum();
    let plans = (1..=cuts.len()).map(|parts| plan(&sizes, &cuts, total / parts));
    plans.min_by_key(|plan| held(plan, &sizes)).expect("the last node is a cut")
}

/// Parts of at least `least` values each, but for the last.
fn plan(sizes: &[usize], cuts: &[usize], least: usize) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, last) = (0, sizes.len());
    for cut in cuts {
        if *cut + 1 == last || sizes[start..=*cut].iter().sum::<usize>() >= least {
            parts.push(start..cut + 1);
            start = cut + 1;
        }
    }
    parts
}

/// Values held at once.
fn held(parts: &[Range<usize>], sizes: &[usize]) -> usize {
    let between: usize = parts.iter().map(|part| sizes[part.end - 1]).sum();
    let within = parts.iter().map(|part| sizes[part.clone()].iter().sum::<usize>()).max();
    between + within.expect("a plan has parts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Design, build};

    fn graph(variant: &str) -> Graph {
        let design =
            Design { variant: variant.to_owned(), width: None, depth: None, classes: 12, image: [64, 64] };
        build(&design).unwrap()
    }

    #[test]
    fn parts_follow_each_other_and_read_one_value() {
        for variant in ["resnet18", "vit_tiny_patch16", "convnext_atto", "efficientnetv2_s"] {
            let graph = graph(variant);
            let parts = segments(&graph);
            assert!(parts.len() > 2, "{variant}: {parts:?}");
            let nodes: Vec<usize> = parts.iter().cloned().flatten().collect();
            assert_eq!(nodes, (0..graph.nodes().len()).collect::<Vec<_>>());
            for part in &parts {
                let inputs = graph.nodes()[part.clone()].iter().flat_map(|node| &node.inputs);
                assert!(
                    inputs.map(|id| id.index() + 1).all(|after| after >= part.start),
                    "{variant}: {part:?}"
                );
            }
        }
    }

    #[test]
    fn far_fewer_values_are_held_than_there_are() {
        let graph = graph("resnet50");
        let sizes: Vec<usize> = graph.shapes().unwrap().into_iter().map(Shape::len).collect();
        let parts = segments(&graph);
        assert!(3 * held(&parts, &sizes) < sizes.iter().sum(), "{parts:?}");
    }
}
