use super::*;

fn design(variant: &str, side: usize) -> Design {
    Design { variant: variant.to_owned(), width: None, depth: None, classes: 1000, image: [side, side] }
}

fn shapes_of(graph: &Graph) -> Shapes {
    graph.params().map(|spec| (spec.name, spec.shape)).collect()
}

#[test]
fn published_parameter_and_multiply_add_counts() {
    // timm's parameters; torchvision's multiply-adds in thousands of millions.
    let table = [
        ("efficientnetv2_s", 384, 21_458_488, 8.37),
        ("efficientnetv2_m", 480, 54_139_356, 24.58),
        ("efficientnetv2_l", 480, 118_515_272, 56.08),
    ];
    for (variant, side, expected, giga) in table {
        let graph = EfficientNet.build(&design(variant, side)).unwrap();
        let specs = graph.params().filter(|spec| !spec.name.contains("running_"));
        let count: usize = specs.map(|spec| spec.shape.iter().product::<usize>()).sum();
        assert_eq!(count, expected, "{variant}");
        let macs: u64 = graph.macs().unwrap().iter().sum();
        assert!((macs as f64 / 1e9 / giga - 1.0).abs() < 0.005, "{variant}: {macs}");
    }
}

#[test]
fn padding_and_epsilon_follow_the_origin_of_the_weights() {
    let graph = EfficientNet.build(&design("efficientnetv2_s", 65)).unwrap();
    let found = |facts: &[(&str, &str)]| {
        let config = Config::default().assuming(facts);
        let graph = EfficientNet.detect(&shapes_of(&graph), &config, [65, 65]).unwrap();
        let pads = graph.nodes().iter().filter(|node| matches!(node.op, Op::SamePad(_))).count();
        match (&graph.node(graph.find("conv_stem").unwrap()).op, &graph.node(graph.find("bn1").unwrap()).op) {
            (Op::Conv2d(stem), Op::BatchNorm(norm)) => (pads, stem.padding[0], norm.eps),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(found(&[]), (5, 0, 1e-3));
    assert_eq!(found(&[("architecture", "\"tf_efficientnetv2_s\"")]), (5, 0, 1e-3));
    assert_eq!(found(&[("architecture", "\"efficientnetv2_s\"")]), (0, 1, 1e-5));
    assert_eq!(found(&[("pad_type", "\"\""), ("bn_eps", "1e-3")]), (0, 1, 1e-3));
}

#[test]
fn gates_stay_dense_and_strides_are_the_papers() {
    let graph = EfficientNet.build(&design("efficientnetv2_s", 64)).unwrap();
    let role = |name: &str| graph.node(graph.find(name).unwrap()).role;
    assert_eq!(role("blocks.3.0.se.conv_reduce"), Role::Side);
    assert_eq!(role("blocks.3.0.conv_pwl"), Role::Body);
    assert_eq!(
        [role("conv_stem"), role("conv_head"), role("classifier")],
        [Role::Stem, Role::Body, Role::Head]
    );
    // Fused blocks have two matrices to prune, others two besides the depthwise one; one in each first block.
    assert_eq!(graph.prunable().count(), 2 + 2 * 8 + 2 * 30 + 1);
    assert_eq!(graph.blocks().len(), 40);
    let strided = graph.nodes().iter().filter(|node| matches!(&node.op, Op::Conv2d(c) if c.stride == [2, 2]));
    let strided: Vec<_> = strided.map(|node| node.name.as_str()).collect();
    let expected = [
        "conv_stem",
        "blocks.1.0.conv_exp",
        "blocks.2.0.conv_exp",
        "blocks.3.0.conv_dw",
        "blocks.5.0.conv_dw",
    ];
    assert_eq!(strided, expected);
}

#[test]
fn refuses_stages_of_another_design() {
    let graph = EfficientNet.build(&design("efficientnetv2_s", 64)).unwrap();
    let mut shapes = shapes_of(&graph);
    shapes.retain(|key, _| !key.starts_with("blocks.4.") && !key.starts_with("blocks.5."));
    let error = EfficientNet.detect(&shapes, &Config::default(), [64, 64]).unwrap_err().to_string();
    assert!(error.contains("stages of another design"), "{error}");
}
