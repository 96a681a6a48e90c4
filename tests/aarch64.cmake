# aarch64.cmake - CMake toolchain of ./dev test: aarch64 programs, run under qemu-user with the
# cross compiler's C library.  Other libraries are static, from build/arm64/root, which
# ./dev setup test fills.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)

get_filename_component(KVCL_ARM64_ROOT "${CMAKE_CURRENT_LIST_DIR}/../build/arm64/root" ABSOLUTE)
set(CMAKE_FIND_ROOT_PATH "${KVCL_ARM64_ROOT}" /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(ENV{PKG_CONFIG_LIBDIR} "${KVCL_ARM64_ROOT}/usr/lib/aarch64-linux-gnu/pkgconfig")
set(ENV{PKG_CONFIG_SYSROOT_DIR} "${KVCL_ARM64_ROOT}")
