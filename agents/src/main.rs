//! `ward`: arguments in, exit code out. What it does is the library's.

fn main() {
    // Threads that wait for standard input must not keep the process.
    std::process::exit(agents::ward(std::env::args_os()))
}
