//! Which buffer holds each value, known before any buffer is allocated.

use std::collections::{BTreeMap, BTreeSet};

use margay_core::Graph;
use margay_kernels::Layout;

use super::fuse::Group;
use super::layouts::{Layouts, Value};

/// The buffers of a plan and what each group reads and writes.
pub(super) struct Buffers {
    pub(super) layouts: Vec<Layout>,
    /// Where the image goes.
    pub(super) image: usize,
    pub(super) slots: Vec<Slots>,
}

/// Indices of the buffers of one group.
#[derive(Clone, Copy)]
pub(super) struct Slots {
    pub(super) input: usize,
    /// Second input.
    pub(super) other: Option<usize>,
    /// Phase planes that are made of the input.
    pub(super) phases: Option<usize>,
    pub(super) output: usize,
}

impl Buffers {
    /// Bytes of all buffers.
    pub(super) fn bytes(&self) -> u64 {
        self.layouts.iter().map(Layout::bytes).sum()
    }
}

/// Gives every value a buffer, which is used again by a value of the same layout when its last reader is done.
pub(super) fn assign(graph: &Graph, groups: &[Group], layouts: &Layouts) -> Buffers {
    let ends = ends(groups, layouts);
    let mut pool = Pool::default();
    let take = |pool: &mut Pool, value: Value| pool.take(value, layouts.of[&value]);
    let image = graph.ids().next().map_or(0, |id| take(&mut pool, Value::Output(id)));
    let mut slots = Vec::with_capacity(groups.len());
    for (group, ends) in groups.iter().zip(ends) {
        let input = pool.find(Value::Output(group.input));
        let strided = layouts.taps.get(&group.main()).is_some_and(margay_kernels::Taps::is_strided);
        let phases = strided.then(|| take(&mut pool, Value::Phases(group.main())));
        let other = group.other.map(|id| pool.find(Value::Output(id)));
        let output = take(&mut pool, Value::Output(group.output()));
        slots.push(Slots { input, other, phases, output });
        for value in ends {
            pool.release(value);
        }
    }
    Buffers { layouts: pool.layouts, image, slots }
}

/// By group, the values that no later group reads; phase planes are read by the group that makes them.
fn ends(groups: &[Group], layouts: &Layouts) -> Vec<Vec<Value>> {
    let mut last = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        if layouts.taps.contains_key(&group.main()) {
            last.insert(Value::Phases(group.main()), index);
        }
        for read in group.other.iter().chain([&group.input]) {
            last.insert(Value::Output(*read), index);
        }
    }
    let mut ends = vec![Vec::new(); groups.len()];
    for (value, index) in last {
        ends[index].push(value);
    }
    ends
}

/// Buffers and who holds them.
#[derive(Default)]
struct Pool {
    layouts: Vec<Layout>,
    free: BTreeMap<Layout, BTreeSet<usize>>,
    held: BTreeMap<Value, usize>,
}

impl Pool {
    /// A free buffer of this layout: its padding is zero, as every kernel leaves it so.
    fn take(&mut self, value: Value, layout: Layout) -> usize {
        let free = self.free.get_mut(&layout).and_then(BTreeSet::pop_first);
        let index = free.unwrap_or_else(|| {
            self.layouts.push(layout);
            self.layouts.len() - 1
        });
        self.held.insert(value, index);
        index
    }

    fn find(&self, value: Value) -> usize {
        *self.held.get(&value).expect("groups are in the order of execution, and what is read later is held")
    }

    fn release(&mut self, value: Value) {
        if let Some(index) = self.held.remove(&value) {
            self.free.entry(self.layouts[index]).or_default().insert(index);
        }
    }
}
