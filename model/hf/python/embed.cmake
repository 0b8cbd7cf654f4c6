# Makes the Python files that a converted model is saved with a C source of two texts:
#
#     cmake -D DIR=model/hf/python -D OUT=custom_code_text.c -P model/hf/python/embed.cmake
set(source "extern const char custom_code_configuration[], custom_code_modeling[];\n")
foreach(part configuration modeling)
    file(READ ${DIR}/${part}_mha2mla.py bytes HEX)
    string(REGEX REPLACE "(................................)" "\\1\n    " bytes "${bytes}")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
    string(APPEND source "const char custom_code_${part}[] = {\n    ${bytes}0};\n")
endforeach()
file(WRITE ${OUT} "${source}")
