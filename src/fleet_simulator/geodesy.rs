// SPDX-License-Identifier: Apache-2.0
//! Converts metres east and north of an origin to WGS 84, by the radii of curvature at the origin.
//!
//! Longitudes stay from -180 up to 180. The tangent plane is exact near the origin only.

/// WGS 84 semi-major axis [m], and first eccentricity squared.
const A_M: f64 = 6_378_137.0;
const E2: f64 = 0.006_694_379_990_141_316;

/// A point on the ellipsoid, and the scale of its tangent plane.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    latitude_deg: f64,
    longitude_deg: f64,
    metres_per_degree_north: f64,
    metres_per_degree_east: f64,
}

impl Origin {
    /// The origin must not be a pole, where there is no east.
    pub fn new(latitude_deg: f64, longitude_deg: f64) -> Self {
        let (sin, cos) = latitude_deg.to_radians().sin_cos();
        let w2 = 1.0 - E2 * sin * sin;
        let meridian = A_M * (1.0 - E2) / (w2 * w2.sqrt());
        let prime_vertical = A_M / w2.sqrt();
        Self {
            latitude_deg,
            longitude_deg,
            metres_per_degree_north: meridian.to_radians(),
            metres_per_degree_east: (prime_vertical * cos).to_radians(),
        }
    }

    /// Latitude and longitude [deg]; the longitude is from -180 up to 180.
    pub fn to_wgs84(&self, east_m: f64, north_m: f64) -> (f64, f64) {
        let latitude = self.latitude_deg + north_m / self.metres_per_degree_north;
        let longitude = self.longitude_deg + east_m / self.metres_per_degree_east;
        (latitude, (longitude + 180.0).rem_euclid(360.0) - 180.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_degree_is_as_long_as_published() {
        // A degree of latitude and one of longitude at 45 degrees, WGS 84 (NGA): 111132 m and 78847 m.
        let (latitude, longitude) = Origin::new(45.0, 11.0).to_wgs84(78_847.0, 111_132.0);
        assert!((latitude - 46.0).abs() < 1e-4 && (longitude - 12.0).abs() < 1e-4, "{latitude} {longitude}");
    }

    #[test]
    fn wraps_at_the_date_line() {
        let (_, longitude) = Origin::new(0.0, 180.0).to_wgs84(100.0, 0.0);
        assert!((-180.0..-179.9).contains(&longitude), "{longitude}");
    }
}
