//! Gives memory back to the system.

/// Gives back to the system what was freed. Loading a model takes several times what the model keeps, and unloading one frees
/// it in many pieces: the allocator of glibc would hold on to that, once for each thread that has loaded one.
///
/// It takes some ten milliseconds where much was freed.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it may be called at any time, from any thread.
        unsafe { libc::malloc_trim(0) };
    }
}
