use super::*;

fn design(variant: &str) -> Design {
    Design { variant: variant.to_owned(), width: None, depth: None, classes: 1000, image: [224, 224] }
}

#[test]
fn published_parameter_and_multiply_add_counts() {
    // The papers' tables: parameters and multiply-adds, the latter in thousands of millions.
    let table = [
        ("convnext_tiny", 28_589_128, 4.47),
        ("convnext_small", 50_223_688, 8.70),
        ("convnext_base", 88_591_464, 15.38),
        ("convnext_large", 197_767_336, 34.40),
        ("convnextv2_atto", 3_708_400, 0.55),
        ("convnextv2_tiny", 28_635_496, 4.47),
        ("convnextv2_base", 88_717_800, 15.38),
    ];
    for (variant, expected, giga) in table {
        let graph = ConvNext.build(&design(variant)).unwrap();
        let count: usize = graph.params().map(|spec| spec.shape.iter().product::<usize>()).sum();
        assert_eq!(count, expected, "{variant}");
        let macs: u64 = graph.macs().unwrap().iter().sum();
        assert!((macs as f64 / 1e9 / giga - 1.0).abs() < 0.005, "{variant}: {macs}");
    }
}
