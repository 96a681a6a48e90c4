# embed.cmake - turns text files into one C file of byte arrays and a table (cl/cl_program.h).
#   cmake -DOUT=embedded.c "-DFILES=a.cl|b.cl" -P embed.cmake
# Byte arrays, because compilers limit the length of string literals.
string(REPLACE "|" ";" files "${FILES}")
set(text "/* made by cl/embed.cmake: the sources of the OpenCL programs */\n")
string(APPEND text "#include \"cl_program.h\"\n\n")
set(table "")
foreach(file IN LISTS files)
    get_filename_component(name "${file}" NAME)
    string(MAKE_C_IDENTIFIER "${name}" id)
    file(READ "${file}" hex HEX)
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
    string(REPEAT "." 80 line)
    string(REGEX REPLACE "(${line})" "\\1\n    " bytes "${bytes}")
    string(APPEND text "static const unsigned char src_${id}[] = {\n    ${bytes}\n};\n")
    string(APPEND table "    {\"${name}\", src_${id}, sizeof src_${id}},\n")
endforeach()
string(APPEND text "\nconst kvcl_cl_source kvcl_cl_sources[] = {\n${table}    {0, 0, 0},\n};\n")
file(WRITE "${OUT}" "${text}")
