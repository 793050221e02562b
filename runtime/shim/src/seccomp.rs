//! The system call filter that containers have by default: what programs need is allowed, some more with the capability that the
//! kernel would ask for anyway, and the rest fails.
//!
//! How it fails matters. What is kept from containers on purpose fails with EPERM. Everything else, which means system calls newer
//! than this list or than the library that knows their numbers, fails with ENOSYS: programs then take the way that they took on an
//! older kernel, where EPERM would break them (`clone3`, `fchmodat2` and others have such fall-backs).

use std::collections::BTreeSet;

use serde_json::{Value, json};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Allowed for everybody.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    // Files and folders
    "access", "chdir", "chmod", "chown", "chown32", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3",
    "faccessat", "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown",
    "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat",
    "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futimesat", "getcwd", "getdents",
    "getdents64", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "ioctl",
    "lchown", "lchown32", "lgetxattr", "link", "linkat", "listxattr", "listxattrat", "llistxattr", "_llseek", "lremovexattr", "lseek",
    "lsetxattr", "lstat", "lstat64", "memfd_create", "mkdir", "mkdirat", "mknod", "mknodat", "name_to_handle_at", "newfstatat",
    "open", "openat", "openat2", "pipe", "pipe2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read",
    "readahead", "readlink", "readlinkat", "readv", "removexattr", "removexattrat", "rename", "renameat", "renameat2", "rmdir",
    "sendfile", "sendfile64", "setxattr", "setxattrat", "splice", "stat", "stat64", "statfs", "statfs64", "statx", "symlink",
    "symlinkat", "sync", "sync_file_range", "syncfs", "tee", "truncate", "truncate64", "umask", "unlink", "unlinkat", "utime",
    "utimensat", "utimensat_time64", "utimes", "vmsplice", "write", "writev",
    // Asynchronous input and output, waiting
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_wait_old",
    "eventfd", "eventfd2", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit",
    "_newselect", "poll", "ppoll", "ppoll_time64", "pselect6", "pselect6_time64", "select", "signalfd", "signalfd4", "timerfd_create",
    "timerfd_gettime", "timerfd_gettime64", "timerfd_settime", "timerfd_settime64",
    // Memory
    "brk", "cachestat", "get_thread_area", "madvise", "map_shadow_stack", "membarrier", "mincore", "mlock", "mlock2", "mlockall", "mmap",
    "mmap2", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect",
    "process_mrelease", "remap_file_pages", "rseq", "set_thread_area",
    // Processes, threads and signals
    "alarm", "arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex", "futex_requeue", "futex_time64",
    "futex_wait", "futex_waitv", "futex_wake", "getcpu", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32",
    "getgroups", "getgroups32", "getitimer", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getresgid", "getresgid32",
    "getresuid", "getresuid32", "getrlimit", "get_robust_list", "getrusage", "getsid", "gettid", "getuid", "getuid32", "ioprio_get",
    "ioprio_set", "kill", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "modify_ldt", "pause",
    "pidfd_getfd", "pidfd_open", "pidfd_send_signal", "prctl", "prlimit64", "process_vm_readv", "process_vm_writev", "ptrace",
    "restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getscheduler", "sched_rr_get_interval",
    "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield",
    "seccomp", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setitimer",
    "setpgid", "setpriority", "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid",
    "setreuid32", "setrlimit", "set_robust_list", "setsid", "set_tid_address", "setuid", "setuid32", "sigaltstack", "sigprocmask",
    "sigreturn", "tgkill", "tkill", "ugetrlimit", "vfork", "wait4", "waitid", "waitpid",
    // Time and the machine
    "adjtimex", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64",
    "clock_nanosleep", "clock_nanosleep_time64", "getrandom", "gettimeofday", "nanosleep", "sysinfo", "time", "timer_create",
    "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64", "times", "uname",
    // Sockets and System V
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "ipc", "listen", "mq_getsetattr", "mq_notify",
    "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget",
    "msgrcv", "msgsnd", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "semctl", "semget", "semop", "semtimedop",
    "semtimedop_time64", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shmat", "shmctl", "shmdt", "shmget", "shutdown",
    "socketcall", "socketpair",
];

/// Allowed with a capability, refused with EPERM without.
#[rustfmt::skip]
const WITH_CAPABILITY: &[(&str, &[&str])] = &[
    ("SYS_ADMIN", &[
        "bpf", "clone", "clone3", "fanotify_init", "fanotify_mark", "fsconfig", "fsmount", "fsopen", "fspick", "listmount",
        "lookup_dcookie", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount", "mount_setattr", "move_mount",
        "open_tree", "perf_event_open", "pivot_root", "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns", "statmount",
        "swapoff", "swapon", "syslog", "umount", "umount2", "unshare",
    ]),
    ("BPF", &["bpf"]),
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("PERFMON", &["perf_event_open"]),
    ("SYSLOG", &["syslog"]),
    ("SYS_BOOT", &["kexec_file_load", "kexec_load", "reboot"]),
    ("SYS_CHROOT", &["chroot"]),
    ("SYS_MODULE", &["create_module", "delete_module", "finit_module", "init_module", "query_module"]),
    ("SYS_NICE", &["get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"]),
    ("SYS_PACCT", &["acct"]),
    ("SYS_PTRACE", &["kcmp", "process_madvise"]),
    ("SYS_RAWIO", &["ioperm", "iopl"]),
    ("SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("SYS_TTY_CONFIG", &["vhangup"]),
];

/// Refused to everybody with EPERM: keyrings are not namespaced, the others let a container reach into the kernel's inner life.
#[rustfmt::skip]
const REFUSED: &[&str] = &[
    "_sysctl", "add_key", "get_kernel_syms", "io_uring_enter", "io_uring_register", "io_uring_setup", "keyctl", "memfd_secret",
    "nfsservctl", "request_key", "sysfs", "uselib", "userfaultfd", "ustat", "vm86", "vm86old",
];

/// `clone` flags that make namespaces: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. (NEWTIME shares its bit with the
/// signal number and exists for `clone3` only.)
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Personalities (personality(2)) that programs use: plain, PER_LINUX32, UNAME26, both, and asking.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Address families up to here are ordinary networking. From AF_ALG (38) on come interfaces with a record of kernel bugs, and AF_VSOCK
/// (40), which no namespace divides.
const ORDINARY_FAMILIES_END: u64 = 38;

/// The filter for a container with `capabilities`, in the form of the OCI specification.
pub(crate) fn runtime_default(capabilities: &BTreeSet<&str>) -> Value {
    let mut allowed: BTreeSet<&str> = ALLOWED.iter().copied().collect();
    let mut refused: BTreeSet<&str> = REFUSED.iter().copied().collect();
    for (capability, names) in WITH_CAPABILITY {
        if capabilities.contains(capability) {
            allowed.extend(*names);
        } else {
            refused.extend(*names);
        }
    }
    let mut rules = vec![json!({ "names": &allowed, "action": "SCMP_ACT_ALLOW" })];
    if !allowed.contains("clone") {
        rules.push(json!({
            "names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }],
        }));
        // Its flags are in memory, where a filter cannot look.
        rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    }
    for personality in PERSONALITIES {
        rules.push(json!({
            "names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": personality, "op": "SCMP_CMP_EQ" }],
        }));
    }
    rules.push(json!({
        "names": ["socket"], "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 0, "value": ORDINARY_FAMILIES_END, "op": "SCMP_CMP_LT" }],
    }));
    rules.push(json!({
        "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM,
        "args": [{ "index": 0, "value": ORDINARY_FAMILIES_END, "op": "SCMP_CMP_GE" }],
    }));
    refused.retain(|name| !allowed.contains(name) && !["clone", "clone3"].contains(name));
    rules.push(json!({ "names": &refused, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM }));
    let architectures: &[&str] = if cfg!(target_arch = "x86_64") {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    } else {
        &["SCMP_ARCH_NATIVE"]
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": architectures,
        "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(filter: &Value, name: &str) -> Option<(String, Option<u64>)> {
        filter["syscalls"].as_array().unwrap().iter().find_map(|rule| {
            let named = rule["names"].as_array().unwrap().iter().any(|known| known == name);
            (named && rule.get("args").is_none())
                .then(|| (rule["action"].as_str().unwrap().to_owned(), rule["errnoRet"].as_u64()))
        })
    }

    #[test]
    fn capability_opens_what_it_guards_and_nothing_is_listed_twice() {
        let plain = runtime_default(&BTreeSet::new());
        let admin = runtime_default(&BTreeSet::from(["SYS_ADMIN"]));
        let refused = Some(("SCMP_ACT_ERRNO".to_owned(), Some(1)));
        let allowed = Some(("SCMP_ACT_ALLOW".to_owned(), None));
        assert_eq!(action(&plain, "mount"), refused);
        assert_eq!(action(&admin, "mount"), allowed);
        assert_eq!(action(&plain, "bpf"), refused);
        assert_eq!(action(&runtime_default(&BTreeSet::from(["BPF"])), "bpf"), allowed);
        assert_eq!(action(&admin, "keyctl"), refused);
        assert_eq!(action(&plain, "clone3"), Some(("SCMP_ACT_ERRNO".to_owned(), Some(38))));
        assert_eq!(action(&plain, "nosuchcall"), None);
        for filter in [plain, admin] {
            let mut seen = BTreeSet::new();
            for rule in filter["syscalls"].as_array().unwrap() {
                if rule.get("args").is_none() {
                    for name in rule["names"].as_array().unwrap() {
                        assert!(
                            seen.insert(name.as_str().unwrap().to_owned()),
                            "{name} is listed twice"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn filter_is_valid_oci() {
        let filter: oci_spec::runtime::LinuxSeccomp =
            serde_json::from_value(runtime_default(&BTreeSet::from(["SYS_CHROOT"]))).unwrap();
        assert!(filter.syscalls().as_ref().unwrap().len() > 5);
    }
}
