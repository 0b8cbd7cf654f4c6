# What `cmake --install` puts where, below one prefix that may be moved afterwards:
#
#     bin/mha2mla                                  the page of `compare --out` is part of it
#     share/mha2mla/configs/                       the examples of --help need demo.yaml and demo/
#     share/mha2mla/slurm/                         job scripts, which find the program by themselves
#     share/mha2mla/modulefiles/mha2mla/VERSION    for environment modules and Lmod
#     share/man/man1/mha2mla.1
#     share/bash-completion/completions/mha2mla
#     share/doc/mha2mla/
include(GNUInstallDirs)

# Libraries outside the system's folders (Spack, environment modules) are found again at run time.
# Must be set before the target is made, hence this file is included above it.
set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)

# The manual page and bash completion are printed by the program from its tables of options, so they
# are made whenever it is linked. A program for another kind of CPU cannot be run here.
function(add_manual_and_completion)
    if(CMAKE_CROSSCOMPILING)
        return()
    endif()
    add_custom_command(TARGET mha2mla POST_BUILD
        COMMAND mha2mla manual > mha2mla.1
        COMMAND mha2mla completion bash > mha2mla.bash
        BYPRODUCTS mha2mla.1 mha2mla.bash VERBATIM)
    install(FILES ${CMAKE_BINARY_DIR}/mha2mla.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
    install(FILES ${CMAKE_BINARY_DIR}/mha2mla.bash
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME mha2mla)
endfunction()

function(install_mha2mla)
    set(share ${CMAKE_INSTALL_DATADIR}/mha2mla)
    install(TARGETS mha2mla RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    install(DIRECTORY configs DESTINATION ${share}
        FILES_MATCHING PATTERN "*.yaml" PATTERN "*.gz" PATTERN "*.json" PATTERN "*.safetensors")
    install(PROGRAMS slurm/submit.sh DESTINATION ${share}/slurm)
    install(FILES slurm/train.sbatch slurm/sweep.sbatch slurm/eval.sbatch slurm/compare.sbatch
        DESTINATION ${share}/slurm)
    install(FILES packaging/modulefile DESTINATION ${share}/modulefiles/mha2mla
        RENAME ${PROJECT_VERSION})
    install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
    install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright) # as Debian names it
    install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
    install(FILES bench/results.md DESTINATION ${CMAKE_INSTALL_DOCDIR}/bench)
endfunction()
