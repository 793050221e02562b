//! PID 1 of a Podium machine, and its two children.
//!
//! One program, three roles: started by the kernel as process 1 it runs [`boot::PHASES`], then serves one epoll loop
//! until the machine ends ([`machine`]); started as `init net` it configures the network ([`net::child`]), and as `init modules` it
//! loads kernel modules ([`modules::child`]).
//!
//! What process 1 must never do: panic (there is no unwrap, expect or index in this program), block on the network,
//! parse what came from it, or wait for a program it does not supervise. A phase that fails is reported and passed by;
//! the machine stays up with what works.

mod boot;
mod clock;
mod console;
mod control;
mod disk;
mod ending;
mod machine;
mod modules;
mod mounts;
mod net;
mod power;
mod source;
mod spawn;
mod supervisor;
mod uevent;

use std::process::ExitCode;

fn main() -> ExitCode {
    let role = std::env::args().nth(1);
    match role.as_deref() {
        Some("net") => net::child::run(),
        Some("modules") => modules::child::run(),
        Some(_) | None if std::process::id() == 1 => {
            ending::reboot_on_panic();
            machine::run()
        }
        Some(_) | None => {
            eprintln!("init is process 1 of a Podium machine; it is not started by hand");
            ExitCode::from(2)
        }
    }
}
