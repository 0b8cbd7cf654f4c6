# Makes the report's page, with its style and its script put into it, a C array:
#
#     cmake -D DIR=train/report -D OUT=report_template.c -P train/report/embed.cmake
file(READ ${DIR}/page.html page)
file(READ ${DIR}/page.css style)
foreach(part numbers plot chart pointing table scores page)
    file(READ ${DIR}/${part}.js text)
    string(APPEND script "${text}\n")
endforeach()
string(REPLACE "@STYLE@" "${style}" page "${page}")
string(REPLACE "@SCRIPT@" "${script}" page "${page}")
string(HEX "${page}" bytes)
string(REGEX REPLACE "(................................)" "\\1\n    " bytes "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${OUT} "extern const char report_template[];\n"
    "const char report_template[] = {\n    ${bytes}0};\n")
