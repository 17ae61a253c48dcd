//! rclrs links `example_interfaces`, which a ROS 2 prefix from PyPI lacks and posthorn does not use: where no prefix has
//! it, an empty archive of that name satisfies the linker.

use std::{env, fs, io, path::Path};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=AMENT_PREFIX_PATH");
    if env::var_os("CARGO_FEATURE_ROS").is_none() {
        return Ok(());
    }
    let prefixes = env::var("AMENT_PREFIX_PATH").unwrap_or_default();
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    for part in ["rosidl_typesupport_c", "rosidl_generator_c"] {
        let name = format!("example_interfaces__{part}");
        let found = prefixes.split(':').any(|prefix| Path::new(prefix).join(format!("lib/lib{name}.so")).exists());
        if !found {
            fs::write(Path::new(&out).join(format!("lib{name}.a")), "!<arch>\n")?;
        }
    }
    println!("cargo:rustc-link-search=native={out}");
    Ok(())
}
