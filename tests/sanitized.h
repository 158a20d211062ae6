// SPDX-License-Identifier: MIT
// SANITIZED: is this built with AddressSanitizer or ThreadSanitizer, which are slower and keep memory for themselves?
#ifndef TERN_TESTS_SANITIZED_H
#define TERN_TESTS_SANITIZED_H

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#endif
