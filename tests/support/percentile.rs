//! Summing up what was measured.

/// The value below which so many of a hundred values lie; `NaN` where there are none.
pub fn percentile(values: &mut [f64], hundredths: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last * hundredths).div_ceil(100)).copied().unwrap_or(f64::NAN)
}
