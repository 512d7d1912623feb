/* What is compiled with a new glibc and shall load with an old one: setup.py includes this before everything else.
 *
 * A linker binds a name to the newest version that its own C library has. Of all that this library calls, glibc gave a
 * new version to five names of pthreads, in 2.32 and 2.34, when they became part of libc and nothing else about them
 * changed. Binding to their first version, which every glibc has, lowers what the binary asks for from 2.34 to 2.17. Before
 * that the five live in libpthread.so.0: setup.py links to it, and newer ones keep an empty library of that name. */
#ifndef TRPO_GLIBC_H
#define TRPO_GLIBC_H

#if defined(__x86_64__)
#define TRPO_FIRST "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define TRPO_FIRST "GLIBC_2.17"
#endif
#define TRPO_USE_FIRST(name) __asm__(".symver " #name "," #name "@" TRPO_FIRST)
TRPO_USE_FIRST(pthread_create);
TRPO_USE_FIRST(pthread_detach);
TRPO_USE_FIRST(pthread_mutex_trylock);
TRPO_USE_FIRST(pthread_once);
TRPO_USE_FIRST(pthread_sigmask);

#endif
