// How a function gets the name of one of libc. The name is given to the assembler, so that it does not matter what the
// headers make of it (the 64-bit names, the fortified ones).
#pragma once

#define PLUMB_EXPORT(name) __asm__(name) __attribute__((visibility("default")))
// A further name for the same function, in the same source file.
#define PLUMB_ALIAS(name, target) __asm__(name) __attribute__((visibility("default"), alias(target)))
