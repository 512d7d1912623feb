/* What is compiled with a new glibc and shall load with an old one: setup.py includes this before everything else.
 *
 * A linker binds a name to the newest version that its own C library has. Of all that this library calls, glibc gave a
 * new version to seven names of pthreads, in 2.32 and 2.34, when they became part of libc and nothing else about them
 * changed. Binding to their first version, which glibc 2.17 has, lowers what the binary asks for from 2.34 to 2.17. Before
 * that the seven live in libpthread.so.0: setup.py links to it, and newer ones keep an empty library of that name. */
#ifndef TRPO_GLIBC_H
#define TRPO_GLIBC_H

#if defined(__x86_64__)
#define TRPO_FIRST "GLIBC_2.2.5"
#define TRPO_FIRST_SETNAME "GLIBC_2.12" /* it is younger than the others */
#elif defined(__aarch64__)
#define TRPO_FIRST "GLIBC_2.17"
#define TRPO_FIRST_SETNAME TRPO_FIRST
#endif
#define TRPO_USE(name, version) __asm__(".symver " #name "," #name "@" version)
TRPO_USE(pthread_attr_setstacksize, TRPO_FIRST);
TRPO_USE(pthread_create, TRPO_FIRST);
TRPO_USE(pthread_detach, TRPO_FIRST);
TRPO_USE(pthread_mutex_trylock, TRPO_FIRST);
TRPO_USE(pthread_once, TRPO_FIRST);
TRPO_USE(pthread_setname_np, TRPO_FIRST_SETNAME);
TRPO_USE(pthread_sigmask, TRPO_FIRST);

#endif
