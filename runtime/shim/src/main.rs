//! `shim --dir <dir>`: starts a pod's supervisor and returns when it serves. `shim --serve <dir>` is that supervisor.

use std::error::Error as _;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let result = match arguments.as_slice() {
        [flag, dir] if flag == "--dir" => podium_shim::launch(Path::new(dir)),
        [flag, dir] if flag == "--serve" => podium_shim::serve(Path::new(dir)),
        _ => {
            eprintln!("usage: shim --dir <pod's folder>");
            return ExitCode::from(2);
        }
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprint!("podium-shim: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprint!(": {cause}");
        source = cause.source();
    }
    eprintln!();
    ExitCode::FAILURE
}
