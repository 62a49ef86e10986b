//! Sizes in classes: what an object of so many bytes really takes.

/// The largest size that has a class.
pub(crate) const LARGEST: usize = 8192;

const FINE: usize = 256;
const MIDDLE: usize = 1024;
const FINE_CLASSES: usize = FINE / 8;
const MIDDLE_CLASSES: usize = (MIDDLE - FINE) / 16;
/// Three doublings (1 to 8 KiB) of eight steps each.
const COARSE_CLASSES: usize = 24;

/// How many classes there are.
pub(super) const COUNT: usize = FINE_CLASSES + MIDDLE_CLASSES + COARSE_CLASSES;

/// The class that holds objects of `size` bytes, 1 to [`LARGEST`].
#[inline(always)]
pub(super) const fn class_of(size: usize) -> usize {
    if size <= FINE {
        size.saturating_sub(1) / 8
    } else if size <= MIDDLE {
        FINE_CLASSES + (size - FINE - 1) / 16
    } else {
        let doubling = (size - 1).ilog2() as usize - 10;
        let step = 128 << doubling;
        FINE_CLASSES + MIDDLE_CLASSES + doubling * 8 + (size - 1 - (MIDDLE << doubling)) / step
    }
}

/// The size of a class's objects.
pub(super) const fn size_of_class(class: usize) -> usize {
    if class < FINE_CLASSES {
        (class + 1) * 8
    } else if class < FINE_CLASSES + MIDDLE_CLASSES {
        FINE + (class - FINE_CLASSES + 1) * 16
    } else {
        let coarse = class - FINE_CLASSES - MIDDLE_CLASSES;
        (MIDDLE << (coarse / 8)) + (coarse % 8 + 1) * (128 << (coarse / 8))
    }
}

/// What `size` bytes really get: buffers of one rounded size are interchangeable.
#[inline(always)]
pub(crate) const fn rounded(size: usize) -> usize {
    if size <= LARGEST {
        size_of_class(class_of(size))
    } else {
        let step = size.next_power_of_two() / 16;
        size.next_multiple_of(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_fits_its_class_and_no_smaller_one() {
        for size in 1..=LARGEST {
            let class = class_of(size);
            assert!(size_of_class(class) >= size, "{size}");
            assert!(class == 0 || size_of_class(class - 1) < size, "{size}");
        }
        assert_eq!(class_of(LARGEST), COUNT - 1);
        assert_eq!(rounded(216), 216);
        assert!(rounded(LARGEST + 1) > LARGEST);
    }
}
