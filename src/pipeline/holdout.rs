//! Which shots are held out: whole groups of near-duplicates, as the twin of a photo says nothing of new ones.

use std::collections::BTreeMap;

/// Shots of some classes, in the order of their draw, and how many of each class are to be held out.
pub struct Shots<'a> {
    /// Class of each shot.
    pub classes: &'a [usize],
    /// Group of each shot.
    pub groups: &'a [usize],
    /// Shots to hold out, by class; of more than one shot of a class, at most all but one.
    pub wanted: &'a BTreeMap<usize, usize>,
}

impl Shots<'_> {
    /// Whether each shot is held out: the last groups of each class's draw, until there are as many of its shots as wanted.
    ///
    /// A group is passed over if more than half of a class would be held out with it. A class of which nothing is held out
    /// then gives its smallest group that leaves something of every class, else single shots; such classes are returned,
    /// too.
    pub fn held_out(&self) -> (Vec<bool>, Vec<usize>) {
        let (mut held, mut torn) = (vec![false; self.classes.len()], Vec::new());
        for (&class, &wanted) in self.wanted {
            for at in self.of(class).rev() {
                if self.count(&held, class) < wanted
                    && !held[at]
                    && self.fits(&held, self.groups[at], self.half())
                {
                    self.hold(&mut held, self.groups[at]);
                }
            }
            if wanted > 0 && self.count(&held, class) == 0 && !self.smallest(&mut held, class) {
                self.of(class).rev().take(wanted).for_each(|at| held[at] = true);
                torn.push(class);
            }
        }
        (held, torn)
    }

    /// Shots of a class in the order of their draw.
    fn of(&self, class: usize) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.classes.len()).filter(move |at| self.classes[*at] == class)
    }

    /// Shots of a class that are held out.
    fn count(&self, held: &[bool], class: usize) -> usize {
        self.of(class).filter(|at| held[*at]).count()
    }

    /// The most that is held out of each class: half of it, and what is wanted in any case.
    fn half(&self) -> impl Fn(usize) -> usize {
        |class| (self.of(class).count() / 2).max(self.wanted.get(&class).copied().unwrap_or(0))
    }

    /// Whether no more than `most` of any class is held out with a group.
    fn fits(&self, held: &[bool], group: usize, most: impl Fn(usize) -> usize) -> bool {
        let within = |class: usize| {
            let own = self.of(class).filter(|at| self.groups[*at] == group && !held[*at]).count();
            own == 0 || self.count(held, class) + own <= most(class)
        };
        self.wanted.keys().all(|class| within(*class))
    }

    fn hold(&self, held: &mut [bool], group: usize) {
        (0..held.len()).filter(|at| self.groups[*at] == group).for_each(|at| held[at] = true);
    }

    /// Holds out the smallest group of a class that leaves something of every class, if there is one.
    fn smallest(&self, held: &mut [bool], class: usize) -> bool {
        let size = |group: usize| self.groups.iter().filter(|other| **other == group).count();
        let all_but_one = |class: usize| self.of(class).count().saturating_sub(1);
        let groups = self.of(class).rev().map(|at| self.groups[at]);
        let group =
            groups.filter(|group| self.fits(held, *group, all_but_one)).min_by_key(|group| size(*group));
        group.inspect(|group| self.hold(held, *group)).is_some()
    }
}

/// The fold that holds out each photo: groups of a class in turns, from another fold for each class; none for the only photo
/// of a class. A class that would lie in one fold as a whole is dealt out photo by photo.
pub fn fold_of(classes: &[usize], groups: &[usize], count: usize) -> Vec<Option<usize>> {
    let by_group = dealt(classes, groups, count);
    let each: Vec<usize> = (0..classes.len()).collect();
    let by_photo = dealt(classes, &each, count);
    let fold = |at: usize| {
        let own = || (0..classes.len()).filter(|other| classes[*other] == classes[at]);
        let spread = own().any(|other| by_group[other] != by_group[at]);
        (own().count() > 1).then_some(if spread { by_group[at] } else { by_photo[at] })
    };
    (0..classes.len()).map(fold).collect()
}

/// The fold of each photo where each group goes to the next fold of the class of its first photo.
fn dealt(classes: &[usize], groups: &[usize], count: usize) -> Vec<usize> {
    let (mut seen, mut folds) = (BTreeMap::<usize, usize>::new(), BTreeMap::<usize, usize>::new());
    for (class, group) in classes.iter().zip(groups) {
        folds.entry(*group).or_insert_with(|| {
            let nth = seen.entry(*class).or_default();
            *nth += 1;
            (*nth + class) % count
        });
    }
    groups.iter().map(|group| folds[group]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(classes: &[usize], groups: &[usize], wanted: [usize; 2]) -> (Vec<usize>, Vec<usize>) {
        let wanted = wanted.into_iter().enumerate().collect();
        let (held, torn) = Shots { classes, groups, wanted: &wanted }.held_out();
        ((0..held.len()).filter(|at| held[*at]).collect(), torn)
    }

    #[test]
    fn without_near_duplicates_the_last_of_each_draw_are_held_out() {
        let each: Vec<usize> = (0..7).collect();
        assert_eq!(held(&[0, 0, 0, 0, 1, 1, 1], &each, [2, 1]), (vec![2, 3, 6], vec![]));
    }

    #[test]
    fn a_photo_goes_with_its_twins_of_any_class() {
        // The last of class 0 has a twin in its own class and one in class 1.
        assert_eq!(held(&[0, 0, 0, 0, 1, 1, 1], &[9, 1, 2, 9, 9, 3, 4], [1, 1]), (vec![0, 3, 4], vec![]));
        // A group of more than half of class 1 stays.
        assert_eq!(held(&[0, 0, 0, 0, 1, 1, 1], &[0, 1, 2, 9, 9, 9, 4], [1, 1]), (vec![2, 6], vec![]));
    }

    #[test]
    fn a_class_without_a_small_group_gives_its_smallest_or_single_photos() {
        assert_eq!(held(&[0, 0, 0, 1, 1, 1], &[0, 1, 2, 3, 3, 3], [1, 1]), (vec![2, 5], vec![1]));
        assert_eq!(held(&[0, 0, 0, 0, 0, 1, 1], &[7, 7, 7, 7, 8, 8, 9], [1, 0]), (vec![4, 5], vec![]));
    }

    #[test]
    fn folds_hold_out_every_shot_once_but_for_a_classes_only_one() {
        let (classes, each) = ([0, 0, 0, 1, 2, 2, 0], [0, 1, 2, 3, 4, 5, 6]);
        let folds = fold_of(&classes, &each, 3);
        let held = |fold| (0..7).filter(|at| folds[*at] == Some(fold)).collect::<Vec<_>>();
        assert_eq!([held(0), held(1), held(2)], [vec![2, 4], vec![0, 5, 6], vec![1]]);
        assert_eq!(folds[3], None);
        assert!((0..3).all(|fold| {
            (0..3).all(|class| (0..7).any(|at| classes[at] == class && folds[at] != Some(fold)))
        }));
    }

    #[test]
    fn twins_share_a_fold_and_a_class_of_twins_is_spread() {
        let folds = fold_of(&[0, 0, 0, 0, 1, 1, 1], &[0, 1, 0, 2, 5, 5, 5], 3);
        assert_eq!(folds, [1, 2, 1, 0, 2, 0, 1].map(Some));
    }
}
