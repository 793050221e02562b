//! The least that can be process 1, to compare Podium's boot and idling with: it says that it is there, and powers off. With
//! `bare.stay` on the kernel's command line it sleeps for ever instead.

use rustix::system::{RebootCommand, reboot};

fn main() {
    println!("bare: process {}", std::process::id());
    let proc =
        rustix::mount::mount("proc", "/proc", "proc", rustix::mount::MountFlags::empty(), None);
    let line = proc.map(|()| std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
    if line.is_ok_and(|line| line.split_whitespace().any(|word| word == "bare.stay")) {
        println!("bare: stays");
        loop {
            std::thread::park();
        }
    }
    // Only root may, so that started by mistake on a host this does nothing but for root; and there it must be process 1.
    if std::process::id() == 1 {
        let _ = reboot(RebootCommand::PowerOff);
    }
}
