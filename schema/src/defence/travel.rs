//! Whether somebody can have come from where he last signed in to where he signs in now.

use chrono::{DateTime, TimeDelta, Utc};

/// The mean radius of the Earth.
const EARTH_KM: f64 = 6_371.008_8;

/// Faster than that nobody comes anywhere: an aircraft's speed, and a little wind.
const FASTEST_KM_PER_HOUR: f64 = 1_000.0;

/// What addresses are off by, besides what is said of each: networks have their exits elsewhere.
const TOLERANCE_KM: f64 = 50.0;

/// Where somebody was, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spot {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// How exact that is.
    pub radius_km: f64,
    /// When.
    pub at: DateTime<Utc>,
}

/// A way that nobody makes in that time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Travel {
    /// How far it is.
    pub km: f64,
    /// In how much time.
    pub took: TimeDelta,
}

/// The length of the shortest way over the surface (haversine).
#[must_use]
pub fn distance_km(from: &Spot, to: &Spot) -> f64 {
    let (north, south) = (from.latitude.to_radians(), to.latitude.to_radians());
    let (up, along) = (south - north, (to.longitude - from.longitude).to_radians());
    let square = (up / 2.0).sin().powi(2) + north.cos() * south.cos() * (along / 2.0).sin().powi(2);
    2.0 * EARTH_KM * square.clamp(0.0, 1.0).sqrt().asin()
}

/// The way between two spots, if nobody makes it in the time between them; whatever they may be off by is given.
#[must_use]
pub fn impossible(from: &Spot, to: &Spot) -> Option<Travel> {
    let (km, took) = (distance_km(from, to), (to.at - from.at).abs());
    let at_least = km - from.radius_km - to.radius_km - TOLERANCE_KM;
    // Minutes count: an hour that has not passed yet is not one.
    let hours = took.as_seconds_f64() / 3_600.0;
    (at_least > FASTEST_KM_PER_HOUR * hours).then_some(Travel { km, took })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spot(latitude: f64, longitude: f64, minutes: i64) -> Spot {
        Spot { latitude, longitude, radius_km: 10.0, at: DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes) }
    }

    fn anywhere() -> impl Strategy<Value = Spot> {
        (-90.0..90.0_f64, -180.0..180.0_f64, 0_i64..100_000, 0.0..500.0_f64).prop_map(
            |(latitude, longitude, minutes, radius_km)| Spot { radius_km, ..spot(latitude, longitude, minutes) },
        )
    }

    #[test]
    fn from_new_york_to_london_it_is_as_far_as_it_is() {
        let (new_york, london) = (spot(40.7128, -74.006, 0), spot(51.5074, -0.1278, 180));
        let km = distance_km(&new_york, &london);
        assert!((km - 5_570.2).abs() < 0.05, "{km}");
        let travel = impossible(&new_york, &london).unwrap();
        let speed = travel.km / (travel.took.as_seconds_f64() / 3_600.0);
        assert!((speed - 1_856.7).abs() < 0.05, "{speed}");
        assert_eq!(impossible(&new_york, &spot(51.5074, -0.1278, 6 * 60)), None, "by aircraft");
    }

    #[test]
    fn minutes_count_and_what_addresses_are_off_by_is_given() {
        let (vienna, munich) = (spot(48.2082, 16.3738, 0), spot(48.1351, 11.582, 0));
        assert!(impossible(&vienna, &munich).is_some(), "350 km in no time");
        assert_eq!(impossible(&vienna, &spot(48.1351, 11.582, 20)), None, "in twenty minutes nobody is sure");
        assert_eq!(impossible(&vienna, &Spot { radius_km: 400.0, ..munich }), None, "it may be nearer");
        assert_eq!(impossible(&vienna, &spot(48.2, 16.9, 0)), None, "around the corner");
    }

    proptest! {
        #[test]
        fn it_is_as_far_there_as_back_and_nowhere_farther_than_half_around(one in anywhere(), other in anywhere()) {
            let (there, back) = (distance_km(&one, &other), distance_km(&other, &one));
            prop_assert!((there - back).abs() < 1e-6);
            prop_assert!(there >= 0.0 && there <= EARTH_KM * std::f64::consts::PI + 1e-6);
            prop_assert_eq!(impossible(&one, &other).is_some(), impossible(&other, &one).is_some());
            prop_assert!(distance_km(&one, &one) < 1e-6);
            prop_assert_eq!(impossible(&one, &one), None);
        }

        #[test]
        fn more_time_and_less_exactness_never_make_it_impossible(
            one in anywhere(), other in anywhere(), minutes in 0_i64..10_000, off in 0.0..1_000.0_f64,
        ) {
            let later = if other.at >= one.at { other.at } else { one.at } + TimeDelta::minutes(minutes);
            let there = Spot { at: other.at.max(one.at), ..other };
            if impossible(&one, &there).is_none() {
                prop_assert_eq!(impossible(&one, &Spot { at: later, ..there }), None);
                prop_assert_eq!(impossible(&one, &Spot { radius_km: there.radius_km + off, ..there }), None);
            }
        }
    }
}
