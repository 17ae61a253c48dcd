// SPDX-License-Identifier: Apache-2.0
//! rclrs links `example_interfaces` and `test_msgs`, which a lean ROS 2 prefix lacks and posthorn does not use: where
//! no prefix has them, empty archives of their names satisfy the linker.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=AMENT_PREFIX_PATH");
    let prefixes = env::var("AMENT_PREFIX_PATH").unwrap_or_default();
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    for package in ["example_interfaces", "test_msgs"] {
        for part in ["rosidl_typesupport_c", "rosidl_generator_c"] {
            let name = format!("{package}__{part}");
            let library = |prefix: &str| Path::new(prefix).join(format!("lib/lib{name}.so"));
            if !prefixes.split(':').any(|prefix| library(prefix).exists()) {
                fs::write(Path::new(&out).join(format!("lib{name}.a")), "!<arch>\n")?;
            }
        }
    }
    println!("cargo:rustc-link-search=native={out}");
    Ok(())
}
