# The SIMD sources: one text, compiled once per instruction set of this architecture.
set(KVCL_SIMD
    cpu/simd_override.c cpu/simd_rows.c cpu/simd_dot.c cpu/simd_matvec.c
    cpu/simd_matmul.c cpu/simd_attn.c cpu/simd_attn_tile.c cpu/simd_merge.c cpu/simd_block.c
    cpu/simd_glu.c cpu/simd_rope.c cpu/simd_kv.c cpu/simd_code.c cpu/simd_key.c
    cpu/simd_key_few.c cpu/simd_attn_quant.c cpu/simd_attn_scores.c cpu/simd_fwht.c
    cpu/simd_quant.c cpu/simd_gram.c cpu/simd_spectral_keys.c cpu/simd_attn_spectral.c
    cpu/simd_spectral_dec.c
    cpu/simd_holo.c cpu/simd_rans.c cpu/simd_spectral.c cpu/simd_svd.c)

function(kvcl_simd_path name)
  add_library(kvcl_simd_${name} OBJECT ${KVCL_SIMD})
  set_target_properties(kvcl_simd_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_include_directories(kvcl_simd_${name} PRIVATE engine cl cpu)
  if(KVCL_SANITIZE)
    # one file of unrolled vectors takes clang three minutes with every check at -O3; addresses
    # stay checked here
    target_compile_options(kvcl_simd_${name} PRIVATE -O1 -fno-sanitize=undefined ${ARGN})
  elseif(CMAKE_BUILD_TYPE STREQUAL "Debug")
    # without optimisation GCC's intrinsics are macros, whose conversions it warns of
    target_compile_options(kvcl_simd_${name} PRIVATE -O1 ${ARGN})
  else()
    target_compile_options(kvcl_simd_${name} PRIVATE -O3 ${ARGN})
  endif()
  target_sources(kvcl_static PRIVATE $<TARGET_OBJECTS:kvcl_simd_${name}>)
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  kvcl_simd_path(avx2 -mavx2 -mfma -mf16c)
  kvcl_simd_path(avx512 -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
                 -mprefer-vector-width=512)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  kvcl_simd_path(neon)
endif()
