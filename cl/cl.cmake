# cl.cmake - the OpenCL backend of kvcl_static.  OpenCL and CLBlast are loaded at run time: only
# OpenCL's headers are needed here.
find_path(OPENCL_HEADERS NAMES CL/cl.h OpenCL/opencl.h)
if(NOT OPENCL_HEADERS)
  message(FATAL_ERROR "OpenCL's headers are missing (Debian: opencl-c-headers); ./dev setup "
                      "installs them, -DKVCL_OPENCL=OFF builds without OpenCL")
endif()

set(KVCL_CL_KERNELS
    cl/embed.cl cl/norm.cl cl/matvec.cl cl/matvec_wide.cl cl/matmul.cl cl/glu.cl cl/selftest.cl
    cl/defer.cl cl/defer_base.cl cl/defer_attn.cl cl/defer_matvec.cl
    cl/rope.cl cl/kv.cl cl/gram.cl cl/attn.cl cl/attn_vec.cl cl/attn_warp.cl
    cl/fwht.cl cl/quant.cl cl/quant_vec.cl cl/attn_quant.cl cl/attn_quant_vec.cl
    cl/attn_quant_mma.cl cl/block.cl cl/block_vec.cl
    cl/spectral.cl cl/spectral_vec.cl cl/attn_spectral.cl cl/attn_spectral_vec.cl
    cl/attn_spectral_mma.cl cl/holo.cl cl/rans.cl cl/rest.cl cl/svd.cl)
set(KVCL_CL_TEXT cl/shared.h cl/defer.h cl/prelude.cl cl/pages.cl cl/ints.cl cl/mma.cl
    cl/attn_rows.cl cl/attn_rows_vec.cl cl/attn_spectral_rows.cl cl/quant_pages.cl
    cl/block_pages.cl cl/spectral_pages.cl cl/spectral_vec_pages.cl cl/holo_pages.cl
    ${KVCL_CL_KERNELS})
list(TRANSFORM KVCL_CL_TEXT PREPEND ${CMAKE_SOURCE_DIR}/)
string(REPLACE ";" "|" files "${KVCL_CL_TEXT}")
set(KVCL_CL_EMBEDDED ${CMAKE_BINARY_DIR}/cl_embedded.c)
add_custom_command(
  OUTPUT ${KVCL_CL_EMBEDDED}
  COMMAND ${CMAKE_COMMAND} -DOUT=${KVCL_CL_EMBEDDED} "-DFILES=${files}"
          -P ${CMAKE_SOURCE_DIR}/cl/embed.cmake
  DEPENDS ${KVCL_CL_TEXT} ${CMAKE_SOURCE_DIR}/cl/embed.cmake
  COMMENT "Embedding the OpenCL kernels"
  VERBATIM)

target_sources(kvcl_static PRIVATE
    cl/cl_lib.c cl/cl_error.c cl/cl_caps.c cl/cl_list.c cl/cl_dev.c cl/cl_program.c cl/cl_cache.c
    cl/cl_launch.c cl/cl_mat.c cl/cl_clblast.c
    cl/cl_embed.c cl/cl_norm.c cl/cl_matvec.c cl/cl_matvec_wide.c cl/cl_matmul.c cl/cl_glu.c
    cl/cl_defer.c cl/cl_defer_ops.c
    cl/cl_selftest.c cl/cl_rope.c cl/cl_kv.c cl/cl_attn.c cl/cl_fwht.c cl/cl_quant.c
    cl/cl_attn_quant.c cl/cl_block.c cl/cl_gram.c cl/cl_spectral.c cl/cl_attn_spectral.c
    cl/cl_holo.c cl/cl_rans.c cl/cl_rest.c cl/cl_svd.c ${KVCL_CL_EMBEDDED})
target_include_directories(kvcl_static SYSTEM PUBLIC ${OPENCL_HEADERS})
target_compile_definitions(kvcl_static PUBLIC KVCL_WITH_OPENCL)
