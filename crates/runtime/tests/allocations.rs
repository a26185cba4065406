//! The second run of a session allocates nothing. Alone in its binary, whose allocator it replaces.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use margay_runtime::{KernelChoice, Precision, Session, SessionOptions};

#[path = "it/nets/mod.rs"]
mod nets;

use nets::{convnext, efficientnet, resnet, vit};

struct Counter;

thread_local! {
    // Of this thread only, which does all the work of a session of one: the test harness allocates on its own.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: same contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counter = Counter;

#[test]
fn the_second_run_allocates_nothing() {
    let graphs = [
        resnet::graph(&resnet::Spec::tiny()),
        vit::graph(&vit::Spec::tiny()),
        convnext::graph(&convnext::Spec::tiny()),
        efficientnet::graph(&efficientnet::Spec::tiny()),
    ];
    for graph in graphs {
        let model = nets::blocked(&nets::pack(&graph.unwrap(), 0.8).unwrap()).unwrap();
        let kernels = [KernelChoice::Auto, KernelChoice::Sparse, KernelChoice::Dense];
        for (kernel, precision) in kernels.into_iter().flat_map(|k| Precision::ALL.map(|p| (k, p))) {
            let options = SessionOptions { threads: 1, kernel, precision, ..SessionOptions::default() };
            let mut session = Session::new(&model, &options).unwrap();
            let images = nets::noise(2 * session.image_len(), 1);
            let mut logits = vec![0.0; 2 * session.classes()];
            session.run(&images, &mut logits).unwrap();
            let before = ALLOCATIONS.get();
            session.run(&images, &mut logits).unwrap();
            let name = &model.graph.architecture;
            assert_eq!(ALLOCATIONS.get(), before, "{name} {kernel:?} {precision:?}");
        }
    }
}
