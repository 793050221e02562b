//! Builds the image by hand: `build PROGRAMS OUT [CACHE]`, or `build pin` to renew the lock.

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let lock = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("podium-image.lock");
    let programs = arguments.next().unwrap_or_default();
    let cache = |path: Option<String>| {
        PathBuf::from(path.unwrap_or_else(|| "target/image-cache".to_owned()))
    };
    if programs == "pin" {
        print!("{}", podium_image::pin(&lock, &cache(arguments.next()))?);
        return Ok(());
    }
    let out = PathBuf::from(arguments.next().unwrap_or_else(|| "target/image".to_owned()));
    let artifacts = podium_image::build(&podium_image::BuildOptions {
        programs: programs.into(),
        lock,
        cache: cache(arguments.next()),
        out,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        allow_newer: false,
    })?;
    for note in &artifacts.notes {
        println!("note: {note}");
    }
    for path in [&artifacts.uki, &artifacts.kernel, &artifacts.initramfs, &artifacts.disk] {
        println!("{}  {}", podium_image::checksum(path)?, path.display());
    }
    Ok(())
}
