//! What is computed once for each view of a photo that has a number.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tch::Tensor;

use crate::torch::TorchError;

/// Rows of tensors by the number of the view that they were computed from.
pub(super) struct Memory {
    rows: RefCell<BTreeMap<u64, Tensor>>,
    /// Bytes that may be held yet.
    room: Cell<usize>,
}

impl Memory {
    /// Nothing yet, and at most this many bytes.
    pub fn new(room: usize) -> Self {
        Self { rows: RefCell::default(), room: Cell::new(room) }
    }

    /// What `compute` makes of images `[n, …]`, row by row: of those whose numbers it has seen, what it made of them then.
    /// Where the room is taken, rows are computed again.
    pub fn recall(
        &self,
        images: &Tensor,
        numbers: &[u64],
        compute: impl FnOnce(&Tensor) -> Result<Tensor, TorchError>,
    ) -> Result<Tensor, TorchError> {
        let mut rows = self.rows.borrow_mut();
        let new = |at: &i64| !rows.contains_key(&numbers[*at as usize]);
        let new: Vec<i64> = (0..numbers.len() as i64).filter(new).collect();
        let mut fresh = BTreeMap::new();
        if !new.is_empty() {
            let at = Tensor::f_from_slice(&new)?.f_to_device(images.device())?;
            let made = compute(&images.f_index_select(0, &at)?)?;
            fresh.extend(new.iter().map(|at| numbers[*at as usize]).zip(made.f_unbind(0)?));
        }
        let row = |number: &u64| fresh.get(number).unwrap_or_else(|| &rows[number]).shallow_clone();
        let all: Vec<Tensor> = numbers.iter().map(row).collect();
        for (number, row) in fresh {
            let bytes = row.numel() * row.kind().elt_size_in_bytes();
            if bytes <= self.room.get() {
                self.room.set(self.room.get() - bytes);
                // The row alone, not the batch that it is a part of.
                rows.insert(number, row.f_detach_copy()?);
            }
        }
        Ok(Tensor::f_stack(&all, 0)?)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.rows.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn what_has_room_is_computed_once() {
        let images = Tensor::arange(12, (Kind::Float, Device::Cpu)).reshape([4, 3]);
        let asked = RefCell::new(Vec::new());
        let recall = |memory: &Memory, at: &[i64]| {
            let numbers: Vec<u64> = at.iter().map(|at| 100 + *at as u64).collect();
            let shown = images.index_select(0, &Tensor::from_slice(at));
            let made = memory.recall(&shown, &numbers, |images| {
                asked.borrow_mut().push(images.size()[0]);
                Ok(images * 2.0)
            });
            assert_eq!(made.unwrap(), shown * 2.0);
            std::mem::take(&mut *asked.borrow_mut())
        };
        let memory = Memory::new(1 << 20);
        assert_eq!(recall(&memory, &[0, 2]), [2]);
        assert_eq!(recall(&memory, &[2, 1, 0, 3]), [2]);
        assert_eq!(recall(&memory, &[3, 3, 1]), [0_i64; 0]);
        // Two rows of three numbers.
        let small = Memory::new(2 * 3 * 4);
        assert_eq!(recall(&small, &[0, 1, 2]), [3]);
        assert_eq!((recall(&small, &[2, 1, 0]), small.len()), (vec![1], 2));
    }
}
