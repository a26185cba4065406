use super::*;

fn design(variant: &str) -> Design {
    Design { variant: variant.to_owned(), width: None, depth: None, classes: 1000, image: [224, 224] }
}

fn shapes_of(graph: &Graph) -> Shapes {
    graph.params().map(|spec| (spec.name, spec.shape)).collect()
}

#[test]
fn published_parameter_and_multiply_add_counts() {
    // timm's parameters; multiply-adds in thousands of millions, attention included.
    let table = [
        ("vit_tiny_patch16", 5_717_416, 1.26),
        ("vit_small_patch16", 22_050_664, 4.61),
        ("vit_base_patch16", 86_567_656, 17.58),
        ("vit_large_patch16", 304_326_632, 61.60),
    ];
    for (variant, expected, giga) in table {
        let graph = Vit.build(&design(variant)).unwrap();
        let count: usize = graph.params().map(|spec| spec.shape.iter().product::<usize>()).sum();
        assert_eq!(count, expected, "{variant}");
        let macs: u64 = graph.macs().unwrap().iter().sum();
        assert!((macs as f64 / 1e9 / giga - 1.0).abs() < 0.01, "{variant}: {macs}");
    }
}

#[test]
fn the_number_of_heads_is_configured_or_published() {
    let graph = Vit.build(&design("vit_large_patch16")).unwrap();
    let heads = |config: &Config| {
        let graph = Vit.detect(&shapes_of(&graph), config, [224, 224]).unwrap();
        match &graph.node(graph.find("blocks.0.attn").unwrap()).op {
            Op::Attention(attention) => attention.heads,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(heads(&Config::default()), 16);
    assert_eq!(heads(&Config::default().assuming(&[("num_attention_heads", "8")])), 8);
    assert_eq!([super::heads(1280), super::heads(96), super::heads(192)], [16, 2, 3]);
}

#[test]
fn positions_tell_the_grid_and_the_tokens_that_have_one() {
    assert_eq!(grid(197, 1), ([14, 14], 1));
    assert_eq!(grid(196, 1), ([14, 14], 0));
    assert_eq!(grid(198, 2), ([14, 14], 2));
    assert_eq!(grid(1370, 5), ([37, 37], 1));
    assert_eq!(grid(1369, 5), ([37, 37], 0));
}

#[test]
fn relatives_are_refused_by_name() {
    let graph = Vit.build(&design("vit_tiny_patch16")).unwrap();
    let error = |key: &str, shape: &[usize], facts: &[(&str, &str)]| {
        let mut shapes = shapes_of(&graph);
        shapes.insert(key.to_owned(), shape.to_vec());
        Vit.detect(&shapes, &Config::default().assuming(facts), [224, 224]).unwrap_err().to_string()
    };
    let own = ("head.bias", [1000]);
    let table = [
        (error("blocks.0.attn.q_norm.weight", &[64], &[]), "norms of queries"),
        (error("blocks.0.mlp.fc1.weight", &[1024, 192], &[]), "SwiGLU"),
        (error("attn_pool.q.weight", &[192, 192], &[]), "attention pooling"),
        (error("head.weight", &[1000, 960], &[]), "a classifier of 960 features"),
        (error("embed.position", &[200, 192], &[]), "not square"),
        (error("patch_embed.proj.weight", &[192, 1, 16, 16], &[]), "1 input channels"),
        (error(own.0, &own.1, &[("hidden_act", "\"quick_gelu\"")]), "`quick_gelu`"),
        (error(own.0, &own.1, &[("architecture", "\"vit_base_patch32_clip_quickgelu_224\"")]), "quick_gelu"),
        (error(own.0, &own.1, &[("global_pool", "\"avgmax\"")]), "`avgmax`"),
    ];
    for (error, part) in table {
        assert!(error.contains(part) && error.contains("vit_tiny_patch16"), "{error}");
    }
}
