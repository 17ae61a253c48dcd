// SPDX-License-Identifier: Apache-2.0
//! Describes a closed, smooth course on the tangent plane: an ellipse with a second harmonic.
//!
//! A course has no corners. How fast a vehicle follows it is left to [`super::truck`].

use std::f64::consts::TAU;

use super::random::SplitMix64;

/// A course, addressed by a phase from 0 to 2π. It has no corner, because the harmonic is at most a sixth of the
/// shortest half-axis, so the derivative never vanishes.
#[derive(Clone, Debug)]
pub(super) struct Course {
    centre: (f64, f64),
    half_axes: (f64, f64),
    bulge_m: f64,
    twist: (f64, f64),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub east_m: f64,
    pub north_m: f64,
    /// Direction of travel, counter-clockwise from east.
    pub yaw_rad: f64,
    /// Change of direction per metre [rad/m].
    pub curvature_per_m: f64,
    /// Metres per radian of phase.
    pub metres_per_phase: f64,
}

impl Course {
    pub fn new(random: &mut SplitMix64) -> Self {
        Self {
            centre: (random.between(-800.0, 800.0), random.between(-800.0, 800.0)),
            half_axes: (random.between(240.0, 450.0), random.between(240.0, 450.0)),
            bulge_m: random.between(0.0, 40.0),
            twist: (random.between(0.0, TAU), random.between(0.0, TAU)),
        }
    }

    pub fn at(&self, phase: f64) -> Point {
        let (sin, cos) = phase.sin_cos();
        let (sin_e, cos_e) = (2.0 * phase + self.twist.0).sin_cos();
        let (sin_n, cos_n) = (2.0 * phase + self.twist.1).sin_cos();
        let (a, b) = self.half_axes;
        let bulge = self.bulge_m;
        // First and second derivative with respect to the phase.
        let (de, dn) = (-a * sin - 2.0 * bulge * sin_e, b * cos + 2.0 * bulge * cos_n);
        let (dde, ddn) = (-a * cos - 4.0 * bulge * cos_e, -b * sin - 4.0 * bulge * sin_n);
        let metres_per_phase = de.hypot(dn);
        Point {
            east_m: self.centre.0 + a * cos + bulge * cos_e,
            north_m: self.centre.1 + b * sin + bulge * sin_n,
            yaw_rad: dn.atan2(de),
            curvature_per_m: (de * ddn - dn * dde) / metres_per_phase.powi(3),
            metres_per_phase,
        }
    }

    /// The phase, from 0 to 2π, that lies `distance_m` further on. Uses the midpoint rule, exact to centimetres over a
    /// few metres.
    pub fn advance(&self, phase: f64, distance_m: f64) -> f64 {
        let half = phase + 0.5 * distance_m / self.at(phase).metres_per_phase;
        (phase + distance_m / self.at(half).metres_per_phase).rem_euclid(TAU)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A metre along the course is a metre on the ground, in the direction of travel.
        #[test]
        fn a_metre_is_a_metre(seed in any::<u64>(), phase in 0.0..TAU) {
            let course = Course::new(&mut SplitMix64::new(seed));
            let (from, to) = (course.at(phase), course.at(course.advance(phase, 1.0)));
            let (east, north) = (to.east_m - from.east_m, to.north_m - from.north_m);
            prop_assert!((east.hypot(north) - 1.0).abs() < 1e-3);
            prop_assert!((east - from.yaw_rad.cos()).hypot(north - from.yaw_rad.sin()) < 0.02);
            prop_assert!(from.metres_per_phase > 100.0);
        }
    }
}
