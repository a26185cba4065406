use super::*;

fn design(variant: &str, width: Option<usize>) -> Design {
    Design { variant: variant.to_owned(), width, depth: None, classes: 1000, image: [224, 224] }
}

#[test]
fn published_parameter_and_multiply_add_counts() {
    // torchvision's model tables: parameters, and multiply-adds in thousands of millions.
    let table = [
        ("resnet18", 11_689_512, 1.81),
        ("resnet34", 21_797_672, 3.66),
        ("resnet50", 25_557_032, 4.09),
        ("resnet101", 44_549_160, 7.80),
        ("resnet152", 60_192_808, 11.51),
    ];
    for (variant, expected, giga) in table {
        let graph = ResNet.build(&design(variant, None)).unwrap();
        let statistic = |name: &str| name.contains("running_");
        let specs = graph.params().filter(|spec| !statistic(&spec.name));
        let count: usize = specs.map(|spec| spec.shape.iter().product::<usize>()).sum();
        assert_eq!(count, expected, "{variant}");
        let macs: u64 = graph.macs().unwrap().iter().sum();
        assert!((macs as f64 / 1e9 - giga).abs() < 0.01, "{variant}: {macs}");
    }
}

#[test]
fn roles_blocks_and_names() {
    let graph = ResNet.build(&design("resnet50", Some(8))).unwrap();
    let role = |name: &str| graph.node(graph.find(name).unwrap()).role;
    assert_eq!([role("conv1"), role("bn1"), role("fc")], [Role::Stem, Role::Stem, Role::Head]);
    assert_eq!(graph.prunable().count(), 52);
    let ends: Vec<_> = graph.blocks().iter().map(|id| graph.node(*id).name.as_str()).collect();
    assert_eq!((ends.len(), ends[0], ends[15]), (16, "layer1.0.relu", "layer4.2.relu"));
    let stride = |name: &str| match &graph.node(graph.find(name).unwrap()).op {
        Op::Conv2d(conv) => conv.stride[0],
        other => panic!("{name} is {other:?}"),
    };
    assert_eq!([stride("layer2.0.conv1"), stride("layer2.0.conv2")], [1, 2]);
    assert_eq!(stride("layer2.0.downsample.0"), 2);
}

#[test]
fn groups_are_read_from_the_shapes() {
    let graph = ResNet.build(&design("resnet50", Some(8))).unwrap();
    let mut shapes: Shapes = graph.params().map(|spec| (spec.name, spec.shape)).collect();
    for (key, shape) in &mut shapes {
        if key.ends_with("conv2.weight") {
            shape[1] /= 4;
        }
    }
    let found = ResNet.detect(&shapes, &Config::default(), [64, 64]).unwrap();
    let again: Shapes = found.params().map(|spec| (spec.name, spec.shape)).collect();
    assert_eq!(again, shapes);
}

#[test]
fn refuses_what_it_cannot_build() {
    let graph = ResNet.build(&design("resnet18", Some(4))).unwrap();
    let sound: Shapes = graph.params().map(|spec| (spec.name, spec.shape)).collect();
    let with = |key: &str, shape: Option<Vec<usize>>| {
        let mut shapes = sound.clone();
        match shape {
            Some(shape) => shapes.insert(key.to_owned(), shape),
            None => shapes.remove(key),
        };
        ResNet.detect(&shapes, &Config::default(), [64, 64]).unwrap_err().to_string()
    };
    assert!(with("layer3.0.conv2.weight", None).contains("`layer3.0.conv2.weight` is missing"));
    assert!(with("layer1.0.se.fc1.weight", Some(vec![4, 4])).contains("squeeze-and-excitation"));
    assert!(with("bn1.running_mean", None).contains("running statistics"));
    assert!(with("conv1.weight", Some(vec![4, 3])).contains("expected 4 axes"));
    assert!(with("conv1.weight", Some(vec![4, 0, 7, 7])).contains("none empty"));
    assert!(with("conv1.weight", Some(vec![4, 1, 7, 7])).contains("1 input channels"));
    let told = |fact: &str, value: &str| {
        let config = Config::default().assuming(&[(fact, value)]);
        ResNet.detect(&sound, &config, [64, 64]).map_err(|error| error.to_string())
    };
    assert!(told("hidden_act", "\"gelu\"").unwrap_err().contains("two kinds of activations"));
    assert!(told("architecture", "\"resnetblur18\"").unwrap_err().contains("anti-aliased"));
    assert!(told("hidden_act", "\"relu\"").is_ok());
}

#[test]
fn a_checkpoint_may_lack_its_classifier() {
    let graph = ResNet.build(&design("resnet18", Some(4))).unwrap();
    let backbone = graph.params().filter(|spec| !spec.name.starts_with("fc."));
    let backbone: Shapes = backbone.map(|spec| (spec.name, spec.shape)).collect();
    let found = ResNet.detect(&backbone, &Config::default(), [64, 64]).unwrap();
    assert_eq!(found.classes(), 0);
    let empty: Vec<_> = found.params().filter(|spec| spec.shape.contains(&0)).map(|spec| spec.name).collect();
    assert_eq!(empty, ["fc.weight", "fc.bias"]);
}

#[test]
fn hugging_face_tells_where_strides_are() {
    let graph = ResNet.build(&design("resnet50", Some(8))).unwrap();
    let shapes: Shapes = graph.params().map(|spec| (spec.name, spec.shape)).collect();
    let strides = |facts: &[(&str, &str)]| {
        let found = ResNet.detect(&shapes, &Config::default().assuming(facts), [64, 64]).unwrap();
        let stride = |name: &str| match &found.node(found.find(name).unwrap()).op {
            Op::Conv2d(conv) => conv.stride[0],
            other => panic!("{name} is {other:?}"),
        };
        ["layer1.0.conv2", "layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0"].map(stride)
    };
    assert_eq!(strides(&[]), [1, 1, 2, 2]);
    assert_eq!(strides(&[("downsample_in_bottleneck", "true")]), [1, 2, 1, 2]);
    assert_eq!(strides(&[("downsample_in_first_stage", "true")]), [2, 1, 2, 2]);
}
