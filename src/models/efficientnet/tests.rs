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
        ("efficientnet_b0", 224, 5_288_548, 0.386),
        ("efficientnet_lite0", 224, 4_652_008, 0.385),
        ("mobilenetv2", 224, 3_504_872, 0.30),
    ];
    for (variant, side, expected, giga) in table {
        let graph = EfficientNet.build(&design(variant, side)).unwrap();
        let specs = graph.params().filter(|spec| !spec.name.contains("running_"));
        let count: usize = specs.map(|spec| spec.shape.iter().product::<usize>()).sum();
        assert_eq!(count, expected, "{variant}");
        let macs: u64 = graph.macs().unwrap().iter().sum();
        assert!((macs as f64 / 1e9 / giga - 1.0).abs() < 0.01, "{variant}: {macs}");
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
    // Fused blocks have two matrices to prune, those of the first stage one, others three with the depthwise one; one is before
    // the head.
    assert_eq!(graph.prunable().count(), 2 + 2 * 8 + 3 * 30 + 1);
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

/// The number of a block, counted through, and its name without it.
fn counted<'n>(graph: &Graph, name: &'n str) -> Option<(usize, &'n str)> {
    let (stage, rest) = name.strip_prefix("blocks.")?.split_once('.')?;
    let (block, rest) = rest.split_once('.')?;
    let block = format!("blocks.{stage}.{block}.");
    let mut blocks: Vec<String> = Vec::new();
    for node in graph.nodes().iter().filter(|node| node.name.starts_with("blocks.")) {
        let own = node.name.splitn(4, '.').take(3).collect::<Vec<_>>().join(".") + ".";
        if !blocks.contains(&own) {
            blocks.push(own);
        }
    }
    Some((blocks.iter().position(|own| *own == block)?, rest))
}

/// The name with its first part as another library has it.
fn renamed(layers: &[(&str, &str)], name: &str) -> String {
    let of = |(from, _): &&(&str, &str)| name.strip_prefix(from).is_some_and(|rest| rest.starts_with('.'));
    let (from, to) = layers.iter().find(of).unwrap();
    name.replacen(from, to, 1)
}

/// Checkpoints whose blocks are counted through are the same network as those whose stages are.
#[test]
fn blocks_counted_through_fall_into_their_stages() {
    type Own<'a> = &'a dyn Fn(&str, Option<(usize, &str)>) -> String;
    let same = |variant: &str, library: &str, facts: &[(&str, &str)], own: Own| {
        let built = EfficientNet.build(&design(variant, 64)).unwrap();
        let config = Config::default().assuming(facts);
        let graph = EfficientNet.detect(&shapes_of(&built), &config, [64, 64]).unwrap();
        let key = |name: &str| own(name, counted(&graph, name));
        let shapes: Shapes = graph.params().map(|spec| (key(&spec.name), spec.shape)).collect();
        let reading = crate::models::reading::recognise(&shapes).unwrap();
        assert_eq!(reading.library(), library, "{variant}");
        let read = reading.graph(&Config::default(), [64, 64]).unwrap();
        assert_eq!(read.macs().unwrap(), graph.macs().unwrap(), "{variant}");
        for (node, wanted) in read.nodes().iter().zip(graph.nodes()) {
            assert_eq!((&node.op, &node.inputs), (&wanted.op, &wanted.inputs), "{variant}: {}", node.name);
        }
        let names = reading.into_names();
        for (spec, wanted) in read.params().zip(graph.params()) {
            assert_eq!(names.key(&spec.name), key(&wanted.name), "{variant}");
        }
    };
    let lukemelas = |name: &str, block: Option<(usize, &str)>| match block {
        Some((0, layer)) => format!("_blocks.0.{}", {
            let layers = [
                ("conv_dw", "_depthwise_conv"),
                ("conv_pw", "_project_conv"),
                ("bn1", "_bn1"),
                ("bn2", "_bn2"),
                ("se.conv_reduce", "_se_reduce"),
                ("se.conv_expand", "_se_expand"),
            ];
            renamed(&layers, layer)
        }),
        Some((block, layer)) => {
            let layers = [
                ("conv_pwl", "_project_conv"),
                ("conv_pw", "_expand_conv"),
                ("conv_dw", "_depthwise_conv"),
                ("bn1", "_bn0"),
                ("bn2", "_bn1"),
                ("bn3", "_bn2"),
                ("se.conv_reduce", "_se_reduce"),
                ("se.conv_expand", "_se_expand"),
            ];
            let (from, to) =
                layers.into_iter().find(|(from, _)| layer.starts_with(&format!("{from}."))).unwrap();
            format!("_blocks.{block}.{}", layer.replacen(from, to, 1))
        }
        None => {
            let layers = [
                ("conv_stem", "_conv_stem"),
                ("bn1", "_bn0"),
                ("conv_head", "_conv_head"),
                ("bn2", "_bn1"),
                ("classifier", "_fc"),
            ];
            renamed(&layers, name)
        }
    };
    let tensorflow = [("pad_type", "\"same\""), ("bn_eps", "1e-3")];
    same("efficientnet_lite0", "EfficientNet-PyTorch", &tensorflow, &lukemelas);
    same("efficientnet_b0", "EfficientNet-PyTorch", &tensorflow, &lukemelas);
    let torchvision = |name: &str, block: Option<(usize, &str)>| {
        let (layer, rest) = match block {
            Some((_, layer)) => layer.split_once('.').unwrap(),
            None => name.split_once('.').unwrap(),
        };
        let place = match (block.map(|(block, _)| block), layer) {
            (None, "conv_stem") => "features.0.0".to_owned(),
            (None, "bn1") => "features.0.1".to_owned(),
            (None, "conv_head") => "features.18.0".to_owned(),
            (None, "bn2") => "features.18.1".to_owned(),
            (None, _) => "classifier.1".to_owned(),
            (Some(block), layer) => {
                let first = ["conv_dw", "bn1", "conv_pw", "bn2"];
                let other = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"];
                let order: &[&str] = if block == 0 { &first } else { &other };
                let at = order.iter().position(|of| *of == layer).unwrap();
                // Pairs of convolution and norm, the last ones by themselves.
                let last = order.len() - 2;
                let place = if at < last {
                    format!("{}.{}", at / 2, at % 2)
                } else {
                    (last / 2 + at - last).to_string()
                };
                format!("features.{}.conv.{place}", block + 1)
            }
        };
        format!("{place}.{rest}")
    };
    same("mobilenetv2", "torchvision", &[], &torchvision);
}

#[test]
fn networks_without_gates_have_rectifiers_up_to_six_and_their_own_padding() {
    let read = |variant: &str, facts: &[(&str, &str)]| {
        let graph = EfficientNet.build(&design(variant, 64)).unwrap();
        let read =
            EfficientNet.detect(&shapes_of(&graph), &Config::default().assuming(facts), [64, 64]).unwrap();
        let functions: Vec<Activation> = read
            .nodes()
            .iter()
            .filter_map(|node| match &node.op {
                Op::Activation(function) => Some(*function),
                _ => None,
            })
            .collect();
        assert!(functions.len() > 30);
        let pads = read.nodes().iter().filter(|node| matches!(node.op, Op::SamePad(_))).count();
        let kinds: std::collections::HashSet<Activation> = functions.iter().copied().collect();
        (read.architecture.clone(), functions[0], kinds.len(), pads)
    };
    // timm trained the smallest and MobileNet V2 itself; Google's weights are named tf_.
    let lite = |pads| ("efficientnet_lite0".to_owned(), Activation::Relu6, 1, pads);
    assert_eq!(read("efficientnet_lite0", &[]), lite(0));
    assert_eq!(read("efficientnet_lite0", &[("architecture", "\"tf_efficientnet_lite0\"")]), lite(5));
    assert_eq!(read("mobilenetv2", &[]), ("mobilenetv2".to_owned(), Activation::Relu6, 1, 0));
    assert_eq!(read("efficientnet_b0", &[]), ("efficientnet_b0".to_owned(), Activation::Silu, 2, 0));
}
